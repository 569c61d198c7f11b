"""Which transcript the terminal tells, and how a question's rounds read."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorid.method.feedback import attempt_from
from lorid.method.replay import ProblemScore
from lorid.method.stopping import Outcome
from lorid.report.analysis import Case

AGREED_LATER = "First they disagree, then they agree"
AGREED_WRONG = "They agree, and are wrong"
NEVER_AGREED = "They never agree"
AGREED_AT_ONCE = "They agree at once"
KINDS = (AGREED_LATER, AGREED_WRONG, NEVER_AGREED, AGREED_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class StoryRound:
    """One round, ready to show."""

    intuitive: str
    knowledge: str
    deep: str


@dataclass(frozen=True, kw_only=True)
class Story:
    """One question and its rounds."""

    title: str
    question: str
    gold: str | None
    answer: str | None
    rounds: tuple[StoryRound, ...]


def choose_story(cases: Sequence[Case]) -> Story | None:
    """The first kind that there is; of it the shortest in which both sides give answers."""
    whole = [case for case in cases if _num_rounds(case)]
    found = min(
        whole,
        key=lambda case: (KINDS.index(_kind(case.score)), _num_silent(case), _num_rounds(case)),
        default=None,
    )
    return None if found is None else _story(found)


def _kind(score: ProblemScore) -> str:
    if score.outcome is not Outcome.AGREED:
        return NEVER_AGREED
    if score.correct is False:
        return AGREED_WRONG
    return AGREED_LATER if score.num_rounds > 1 else AGREED_AT_ONCE


def _num_rounds(case: Case) -> int:
    """Rounds that the rule used and that were drawn on both sides."""
    item = case.attempts
    return min(case.score.num_rounds, *map(len, (item.intuitive, item.knowledge, item.deep)))


def _num_silent(case: Case) -> int:
    """Attempts without an answer."""
    number = _num_rounds(case)
    texts = [*case.attempts.intuitive[:number], *case.attempts.deep[:number]]
    return sum(attempt_from(text).answer is None for text in texts)


def _story(case: Case) -> Story:
    item = case.attempts
    rounds = [
        StoryRound(
            intuitive=item.intuitive[index].text,
            knowledge=item.knowledge[index].text,
            deep=item.deep[index].text,
        )
        for index in range(_num_rounds(case))
    ]
    return Story(
        title=_kind(case.score),
        question=item.question,
        gold=item.gold,
        answer=case.score.answer,
        rounds=tuple(rounds),
    )
