"""The evaluate stage: ask what no log has yet, then mark all of it by replay.

    questions --> in the log? --yes------------------------> mark --> attempts.jsonl, figures
                      | no                                    ^
                      v                                       |
       online.py (HTTP) or offline.py (Ray Data) --> log shards in the store

The log is the result: every figure in the record and the report is a replay of it, without a model.
It is found by what texts depend on (the adapters' weights, the base, sampling and seed), so a kill
loses what was not logged yet and nothing else, and another rule, grader or split asks only what it
lacks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorid.artifacts.attempts_log import AttemptsLog
from lorid.artifacts.records import Record, fingerprint, load_record
from lorid.artifacts.store import ArtifactStore, Sweepable
from lorid.artifacts.triples import read_manifest
from lorid.config import EndpointConfig
from lorid.distributed.cluster import connected
from lorid.distributed.findings import Announce, compared, look_for_overlap
from lorid.distributed.outcomes import (
    BASE,
    MUTUAL,
    NO_ATTEMPTS,
    Asker,
    Outcome,
    attempts_row,
)
from lorid.distributed.progress import Progress
from lorid.distributed.room import require_room_to_ask
from lorid.errors import ServeError
from lorid.jsonl import json_line, write_jsonl
from lorid.method.equivalence import AnswerChecker
from lorid.method.marking import Marker, score_alone
from lorid.method.paired import compare_pairs, rights_of
from lorid.method.problems import Problem
from lorid.method.replay import ProblemScore
from lorid.serving import EvaluationConfig, check_mode


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What is evaluated, on what: a triple of a store with an endpoint's config and questions.

    `training` is the file of the problems that it was trained on, where that is at hand.
    """

    config: EndpointConfig
    settings: EvaluationConfig
    triple: Record
    problems: Sequence[Problem]
    training: Path | None = None


def log_folder(config: EndpointConfig, *, store: ArtifactStore, triple: Record) -> str:
    """Where the texts lie that this triple writes with this sampling and seed."""
    manifest = read_manifest(store, triple)
    writes = {
        "base": manifest.base.identity,
        "family": manifest.base.family,
        "dtype": manifest.base.dtype,
        "adapters": {str(role): one.weights_sha256 for role, one in manifest.adapters.items()},
        "sampling": config.sampling.model_dump(mode="json"),
        "seed": config.seed,
    }
    return f"attempts/{config.name}/{fingerprint(writes)[:12]}/"


def evaluate(
    subject: Evaluated,
    *,
    store: Sweepable,
    folder: Path,
    announce: Announce,
    opened: Callable[[], AbstractContextManager[Asker]] | None = None,
) -> Mapping[str, Any]:
    """Log, mark, and write `attempts.jsonl`, `base.jsonl`, `errors.jsonl` and `label_audit.jsonl`.

    Returns the record's details. What is in the log already is not asked; where nothing is missing,
    neither Ray nor a GPU is needed. `opened` gives another asker than what the settings say.

    Raises:
        ServeError: the endpoint failed, or questions got no answer for a reason that may pass; what
            came is logged, and the next call asks the rest.
    """
    config = subject.config
    for address in subject.settings.compare:
        load_record(store, address)  # before anything is asked
    where = log_folder(config, store=store, triple=subject.triple)
    with (
        AnswerChecker() as checker,
        AttemptsLog.opened(store, f"{where}{MUTUAL}") as log,
        AttemptsLog.opened(store, f"{where}{BASE}") as base,
    ):
        stage = _Stage(
            subject=subject,
            log=log,
            base=base,
            marker=Marker(policy=config.feedback.policy(), checker=checker),
        )
        num_reused = stage.take_logged()
        if num_reused:
            announce(f"  {num_reused} of {len(subject.problems)} questions are in the log already")
        if stage.to_ask or stage.base_to_ask():
            with opened() if opened else asking(subject, folder=where, announce=announce) as asker:
                stage.ask(asker)
                stage.ask_base(asker)
        stage.require_answers()
        details = stage.write(folder, checker)
        pairs = compared(
            stage.marker, subject.problems, addresses=subject.settings.compare, store=store
        )
    write_jsonl(
        folder / "compared.jsonl",
        ({"against": name, **pair.to_dict()} for name, pair in pairs.items()),
    )
    if subject.training is not None:
        details["contamination"] = look_for_overlap(
            subject.problems, training=subject.training, folder=folder
        )
    details |= {f"against {name}": pair.to_flat() for name, pair in pairs.items()}
    return {**details, "num_reused": num_reused, "log": where.rstrip("/")}


@contextmanager
def asking(subject: Evaluated, *, folder: str, announce: Announce) -> Iterator[Asker]:
    """Whoever answers questions, for the duration of the block: an endpoint, or engines alone.

    Raises:
        ServeError: it cannot be started.
        ResourceError: the cluster has no room for it.
    """
    config, settings = subject.config, subject.settings
    check_mode(settings, config.serving)
    with connected():
        require_room_to_ask(config, settings=settings)
        if settings.mode == "offline":
            from lorid.distributed.deployments import source_of_triple
            from lorid.distributed.offline import ByRayData

            source = source_of_triple(config, subject.triple)
            yield ByRayData(config, settings, source=source, folder=folder)
            return
        from lorid.distributed.online import OverHttp
        from lorid.distributed.served import served

        with served(config, triple=subject.triple) as url:
            announce(f"  serving at {url}")
            yield OverHttp(config, settings, url=url)


class _Stage:
    """The questions of one evaluation on their way into the log and through the marker."""

    def __init__(
        self, *, subject: Evaluated, log: AttemptsLog, base: AttemptsLog, marker: Marker
    ) -> None:
        self.subject, self.log, self.base, self.marker = subject, log, base, marker
        self.to_ask: list[Problem] = []
        self.num_asked = 0
        self.failed: dict[str, Outcome] = {}

    def take_logged(self) -> int:
        """Mark what the log holds, and note what is to be asked; returns how many were there."""
        num_all = len(self.subject.problems)
        with Progress("evaluate") as progress:
            for done, problem in enumerate(self.subject.problems, start=1):
                row = self.log.find(problem.question)
                is_whole = row is not None and self.marker.mark(attempts_row(problem, row))
                if row is None or (self.subject.settings.redraw and not is_whole):
                    self.to_ask.append(problem)
                if self.marker.scores:
                    progress.update("what is logged", done=done, total=num_all)
        return num_all - len(self.to_ask)

    def ask(self, asker: Asker) -> None:
        """Ask what is missing; each row is logged before it counts."""
        with Progress("evaluate") as progress:
            self._show(progress)
            for outcome in asker.attempts(self.to_ask):
                problem = outcome.problem
                self.num_asked += 1
                if outcome.row is None:
                    self.failed[problem.problem_id] = outcome
                else:
                    self.log.add(attempts_row(problem, outcome.row), is_logged=outcome.is_logged)
                    # Of two rows the log keeps the one with more rounds.
                    kept = self.log.find(problem.question) or outcome.row
                    self.marker.mark(attempts_row(problem, kept))
                self._show(progress)
            self.log.flush()

    def base_to_ask(self) -> list[Problem]:
        """Questions for the base: those that are not in its log, and that fit into its context."""
        if not self.subject.settings.grade_base:
            return []
        return [
            problem
            for problem in self.subject.problems
            if problem.question not in self.base and problem.question in self.log
        ]

    def ask_base(self, asker: Asker) -> None:
        """The base's own answers."""
        todo = self.base_to_ask()
        with Progress("evaluate") as progress:
            for done, outcome in enumerate(asker.base_texts(todo), start=1):
                if outcome.row is None:
                    self.failed.setdefault(outcome.problem.problem_id, outcome)
                else:
                    row = {"question": outcome.problem.question, **outcome.row}
                    self.base.add(row, is_logged=outcome.is_logged)
                progress.update("base model alone", done=done, total=len(todo))
            self.base.flush()

    def require_answers(self) -> None:
        """Raise ServeError when the record would count as wrong what was only not answered."""
        failed = list(self.failed.values())
        if not failed:
            return
        num_all = len(self.subject.problems)
        if len(failed) == num_all and not len(self.log):
            raise ServeError(
                f"none of {num_all} problems was answered; the first: {failed[0].error}"
            )
        passing = [outcome for outcome in failed if outcome.may_pass]
        if passing and not self.subject.settings.accept_errors:
            raise ServeError(
                f"{len(passing)} of {num_all} problems got no answer; the first: "
                f"{passing[0].error}; what came is logged: run again to ask these again, or set "
                "evaluation.accept_errors=true to count them as not answered"
            )

    def write(self, folder: Path, checker: AnswerChecker) -> dict[str, Any]:
        """The artifact's files, problem by problem, and the details for the record."""
        problems = self.subject.problems
        with (folder / "attempts.jsonl").open("w", encoding="utf-8") as file:
            for problem in problems:
                row = attempts_row(problem, self.log.find(problem.question) or NO_ATTEMPTS)
                if problem.problem_id not in self.marker.scores:
                    self.marker.mark(row)
                file.write(json_line(row))
        scores = self._write_base(folder, checker)
        errors = [
            outcome.to_error_row()
            for outcome in self.failed.values()
            if outcome.problem.question not in self.log
        ]
        write_jsonl(folder / "errors.jsonl", errors)
        suspects = self.marker.suspects
        write_jsonl(
            folder / "label_audit.jsonl",
            (
                suspects[one.problem_id].to_row(question=one.question, label=one.answer)
                for one in problems
                if one.problem_id in suspects
            ),
        )
        details = {**self.marker.figures(), "num_errors": len(errors), "num_base": len(scores)}
        if scores:
            ours, theirs = rights_of(list(self.marker.scores.values())), rights_of(scores)
            details["against the base"] = compare_pairs(ours, theirs).to_flat()
        return details

    def _write_base(self, folder: Path, checker: AnswerChecker) -> list[ProblemScore]:
        scores: list[ProblemScore] = []
        with (folder / "base.jsonl").open("w", encoding="utf-8") as file:
            if not self.subject.settings.grade_base:
                return scores
            for problem in self.subject.problems:
                found = self.base.find(problem.question)
                if found is not None:
                    row = {
                        "problem_id": problem.problem_id,
                        "gold": problem.answer,
                        "text": found["text"],
                        "finish_reason": found["finish_reason"],
                    }
                    scores.append(score_alone(row, checker))
                    file.write(json_line(row))
        return scores

    def _show(self, progress: Progress) -> None:
        num_all = len(self.subject.problems)
        share = self.marker.num_correct / max(1, len(self.marker.scores))
        note = f"accuracy so far {share:.1%}"
        if self.failed:
            note += f", {len(self.failed)} failed"
        done = num_all - len(self.to_ask) + self.num_asked
        progress.update("mutual feedback", done=done, total=num_all, note=note)
