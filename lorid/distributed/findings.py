"""What an evaluation finds beside its figures: pairs with others, overlap with training, labels.

    pairs = compared(marker, problems, addresses=["evaluation/llama/0123456789ab"], store=store)
    announce_result(record, print)

Each has a file in the evaluation's artifact and counts in its record.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from lorid.artifacts.records import Record, fetch, load_record
from lorid.artifacts.store import ArtifactStore
from lorid.distributed.outcomes import attempts_row
from lorid.errors import DataError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.contamination import Overlap, told_overlap
from lorid.method.marking import Marker
from lorid.method.paired import Paired, compare_pairs, rights_of
from lorid.method.problems import Problem

Announce = Callable[[str], None]


def compared(
    marker: Marker,
    problems: Sequence[Problem],
    *,
    addresses: Sequence[str],
    store: ArtifactStore,
) -> Mapping[str, Paired]:
    """What was marked against other evaluations, over the questions of both.

    Theirs are marked again: by this evaluation's rule and grader, against its labels.

    Raises:
        ArtifactError: one is not in the store, or is damaged.
        DataError: it has none of these questions.
    """
    ours = rights_of(list(marker.scores.values()))
    pairs: dict[str, Paired] = {}
    problem_of: dict[str, list[Problem]] = {}
    for problem in problems:
        problem_of.setdefault(problem.question, []).append(problem)
    for address in addresses:
        other = Marker(policy=marker.policy, checker=marker.checker)
        with tempfile.TemporaryDirectory(prefix="lorid-") as temporary:
            files = fetch(store, load_record(store, address), into=Path(temporary))
            for _, row in read_jsonl(files / "attempts.jsonl"):
                for problem in problem_of.get(row["question"], ()):
                    other.mark(attempts_row(problem, row))
        if not other.scores:
            raise DataError(
                f"evaluation.compare: {address} has none of these questions; name one of the same "
                "split"
            )
        pairs[address] = compare_pairs(ours, rights_of(list(other.scores.values())))
    return pairs


def look_for_overlap(
    problems: Sequence[Problem], *, training: Path, folder: Path
) -> Mapping[str, int]:
    """Which questions share words in a row with a training row; writes `contamination.jsonl`."""
    overlap = Overlap([(one.problem_id, one.question) for one in problems])
    for _, row in read_jsonl(training):
        overlap.look_at(row["problem_id"], row["question"], row["rationale"])
    write_jsonl(folder / "contamination.jsonl", overlap.rows())
    return overlap.details()


def announce_result(record: Record, announce: Announce) -> None:
    """What a user should hear of a finished evaluation beside its figures."""
    details = record.details
    if details["num_errors"]:
        announce(
            f"  {details['num_errors']} of {details['num_problems']} problems failed in the "
            "endpoint and count as not answered; errors.jsonl of the artifact says why"
        )
    if details.get("num_short"):
        announce(
            f"  {details['num_short']} of {details['num_problems']} problems were drawn by another "
            f"rule or bound and end before {details['rule']!r} would: judged by the rounds there "
            "are; evaluation.redraw=true draws the rest"
        )
    if details.get("num_suspect_labels"):
        announce(
            f"  {details['num_suspect_labels']} labels are doubtful: every rule agrees on another "
            "answer; label_audit.jsonl of the artifact lists them"
        )
    overlap = details.get("contamination")
    if isinstance(overlap, Mapping) and overlap["questions_8_words"]:
        announce(f"  {told_overlap(overlap)}; contamination.jsonl of the artifact lists them")
    for name, pair in details.items():
        if name.startswith("against ") and isinstance(pair, Mapping):
            whole = Paired.from_dict({**pair, "interval": (pair["low"], pair["high"])})
            announce(f"  {name}: {whole.told()}")
