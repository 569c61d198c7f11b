"""Which transcripts a report tells, and how a question's rounds read."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorid.method.attempts import ProblemAttempts
from lorid.method.feedback import attempt_from
from lorid.method.replay import ProblemScore
from lorid.method.stopping import Outcome

MAX_STORIES_OF_A_KIND = 3
AGREED_LATER = "First they disagree, then they agree"
AGREED_WRONG = "They agree, and are wrong"
NEVER_AGREED = "They never agree"
AGREED_AT_ONCE = "They agree at once"
KINDS = (AGREED_LATER, AGREED_WRONG, NEVER_AGREED, AGREED_AT_ONCE)


@dataclass(frozen=True, kw_only=True)
class StoryRound:
    """One round, ready to show."""

    intuitive: str
    intuitive_answer: str | None
    knowledge: str
    deep: str
    deep_answer: str | None


@dataclass(frozen=True, kw_only=True)
class Story:
    """One question and its rounds."""

    title: str
    question: str
    gold: str | None
    answer: str | None
    correct: bool | None
    rounds: tuple[StoryRound, ...]


def choose_stories(
    attempts: Sequence[ProblemAttempts], scores: Sequence[ProblemScore]
) -> list[Story]:
    """A few of each kind: disagreement then agreement, agreed but wrong, never agreed, at once."""
    stories: dict[str, list[Story]] = {title: [] for title in KINDS}
    for item, score in zip(attempts, scores, strict=True):
        stories[_kind(score)].append(_story(_kind(score), item, score))
    # Short ones in which both sides give answers read best.
    return [
        story
        for title in KINDS
        for story in sorted(stories[title], key=_reading_effort)[:MAX_STORIES_OF_A_KIND]
    ]


def _reading_effort(story: Story) -> tuple[int, int]:
    answers = [answer for r in story.rounds for answer in (r.intuitive_answer, r.deep_answer)]
    return answers.count(None), len(story.rounds)


def _kind(score: ProblemScore) -> str:
    if score.outcome is not Outcome.AGREED:
        return NEVER_AGREED
    if score.correct is False:
        return AGREED_WRONG
    return AGREED_LATER if score.num_rounds > 1 else AGREED_AT_ONCE


def _story(title: str, item: ProblemAttempts, score: ProblemScore) -> Story:
    rounds = [
        StoryRound(
            intuitive=item.intuitive[index].text,
            intuitive_answer=attempt_from(item.intuitive[index]).answer,
            knowledge=item.knowledge[index].text,
            deep=item.deep[index].text,
            deep_answer=attempt_from(item.deep[index]).answer,
        )
        for index in range(
            min(score.num_rounds, *map(len, (item.intuitive, item.knowledge, item.deep)))
        )
    ]
    return Story(
        title=title,
        question=item.question,
        gold=item.gold,
        answer=score.answer,
        correct=score.correct,
        rounds=tuple(rounds),
    )
