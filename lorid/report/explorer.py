"""What the disagreement explorer shows, packed: one index, and pages of questions with all texts.

    packed = pack(analysis)
    packed.blocks["index"], packed.blocks["page-0"]      # gzip in base64, of JSON

A browser unpacks the index at once and a page when a question of it is opened. Texts of rounds
after the decision are left out where a report would grow beyond `MAX_BYTES`; that is said.
"""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorid.method.feedback import Sampled, attempt_from
from lorid.method.stopping import Outcome
from lorid.report.analysis import Analysis, Case
from lorid.report.buckets import BUCKETS

QUESTIONS_A_PAGE = 40
SPARE_ROUNDS = (8, 4, 2, 1, 0)
MAX_BYTES = 4_600_000
"""Of all blocks together: with scripts and plots a report then stays below 5 MB."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The blocks by name, and the number of rounds whose texts were left out.

    `has_spare`: whether there are still rounds in it that decided nothing.
    """

    blocks: Mapping[str, str]
    num_left_out: int
    has_spare: bool

    @property
    def num_bytes(self) -> int:
        """What the blocks take in the page."""
        return sum(map(len, self.blocks.values()))


def pack(analysis: Analysis, *, max_bytes: int = MAX_BYTES) -> Packed:
    """All of it if it fits, else with fewer rounds that decided nothing, at last with none."""
    packed = _packed(analysis.cases, num_spare=None)
    for num_spare in SPARE_ROUNDS:
        if packed.num_bytes <= max_bytes or not packed.has_spare:
            break
        packed = _packed(analysis.cases, num_spare=num_spare)
    return packed


def _packed(cases: Sequence[Case], *, num_spare: int | None) -> Packed:
    details = [_detail(case, num_spare=num_spare) for case in cases]
    blocks = {"index": _block([_entry(case) for case in cases])}
    for number, start in enumerate(range(0, len(cases), QUESTIONS_A_PAGE)):
        blocks[f"page-{number}"] = _block(details[start : start + QUESTIONS_A_PAGE])
    return Packed(
        blocks=blocks,
        num_left_out=sum(one["left_out"] for one in details),
        has_spare=any(
            len(one["rounds"]) > case.score.num_rounds
            for case, one in zip(cases, details, strict=True)
        ),
    )


def _block(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Half of a surrogate pair, which no file takes, cannot come from a log; it must not stop one.
    packed = gzip.compress(text.encode("utf-8", "replace"), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def _entry(case: Case) -> dict[str, Any]:
    """What the list of questions shows and is filtered by."""
    names = list(BUCKETS)
    return {
        "id": case.attempts.problem_id,
        "question": case.attempts.question,
        "gold": case.attempts.gold,
        "answer": case.score.answer,
        "correct": case.score.correct,
        "outcome": case.score.outcome,
        "rounds": case.score.num_rounds,
        "buckets": [names.index(name) for name in case.buckets],
    }


def _detail(case: Case, *, num_spare: int | None) -> dict[str, Any]:
    """One question: its verdict and its rounds, with all or so many after the decision."""
    item, scored = case.attempts, case.score
    drawn = max(len(item.intuitive), len(item.knowledge), len(item.deep))
    shown = drawn if num_spare is None else min(drawn, scored.num_rounds + num_spare)
    answer_class = _class_of(case)
    return {
        "confidence": scored.confidence,
        "generations": scored.num_generations,
        "reason": case.reason,
        "met": scored.num_rounds if scored.outcome is Outcome.AGREED else None,
        "intuitive": _rounds_of(case.judged.intuitive, answer_class, used=scored.num_rounds),
        "deep": _rounds_of(case.judged.deep, answer_class, used=scored.num_rounds),
        "left_out": drawn - shown,
        "rounds": [
            [
                _attempt(item.intuitive, case.judged.intuitive, index, case),
                _knowledge(case, index),
                _attempt(item.deep, case.judged.deep, index, case),
            ]
            for index in range(shown)
        ],
    }


def _class_of(case: Case) -> int | None:
    answer = case.score.answer
    return case.judged.texts.index(answer) if answer in case.judged.texts else None


def _rounds_of(classes: Sequence[int | None], answer: int | None, *, used: int) -> list[int]:
    """The rounds, from 1, in which a side gave the answer."""
    return [
        number
        for number, one in enumerate(classes[:used], start=1)
        if one is not None and one == answer
    ]


def _attempt(
    texts: Sequence[Sampled], classes: Sequence[int | None], index: int, case: Case
) -> list[Any] | None:
    """Text, answer, whether it is right, whether it was cut off; None where none was drawn."""
    if index >= len(texts):
        return None
    sampled = texts[index]
    answer = attempt_from(sampled).answer
    return [sampled.text, answer, case.judged.is_right(classes[index]), int(sampled.truncated)]


def _knowledge(case: Case, index: int) -> list[Any] | None:
    if index >= len(case.attempts.knowledge):
        return None
    return [case.attempts.knowledge[index].text, list(case.faults[index])]
