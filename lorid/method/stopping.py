"""The rules that mutual feedback stops by, over the answers in the order of their rounds.

* paper: each side's answers form a cumulative set; stop at the first round where the sets meet. The
  agreed answer with most pooled votes is chosen, then the one that came first. The label is never
  looked at (the published scoring does: `paper-oracle` in `lorid.method.scoring`).
* same-round: stop when both answers of one round are equal.
* intuitive-only, deep-only: one attempt of one side.

`majority` needs all attempts first, so it is a rule of replay only.
"""

from dataclasses import dataclass, field

from lorid.method.equivalence import AnswerChecker

# Without agreement the deep reasoner's vote decides ties: it is the stronger side in the paper.
DEEP_VOTE = 1.01


@dataclass(kw_only=True)
class Candidate:
    """One class of equal answers: its first text, and the rounds in which each side gave it."""

    text: str
    intuitive_rounds: list[int] = field(default_factory=list)
    deep_rounds: list[int] = field(default_factory=list)

    @property
    def num_votes(self) -> int:
        """How often either side gave it."""
        return len(self.intuitive_rounds) + len(self.deep_rounds)

    @property
    def weighted_votes(self) -> float:
        """Votes for the fallback."""
        return len(self.intuitive_rounds) + DEEP_VOTE * len(self.deep_rounds)

    @property
    def is_shared(self) -> bool:
        """Whether both sides gave it."""
        return bool(self.intuitive_rounds and self.deep_rounds)


@dataclass(kw_only=True)
class Answers:
    """Answers so far, grouped into classes of equal ones in order of first appearance."""

    checker: AnswerChecker
    candidates: list[Candidate] = field(default_factory=list)
    num_rounds: int = 0

    def add(self, *, intuitive: str | None, deep: str | None) -> None:
        """Take one round's answers; an empty answer is dropped."""
        if intuitive:
            self._candidate(intuitive).intuitive_rounds.append(self.num_rounds)
        if deep:
            self._candidate(deep).deep_rounds.append(self.num_rounds)
        self.num_rounds += 1

    def share_of(self, answer: str) -> float:
        """The share of an answer's class among all answers."""
        total = sum(candidate.num_votes for candidate in self.candidates)
        equal = (c for c in self.candidates if self.checker.equal(c.text, answer))
        return next(equal).num_votes / total

    def _candidate(self, answer: str) -> Candidate:
        for candidate in self.candidates:
            if self.checker.equal(candidate.text, answer):
                return candidate
        self.candidates.append(Candidate(text=answer))
        return self.candidates[-1]


def sides_of(rule: str) -> tuple[bool, bool]:
    """Whether a rule asks the intuitive and the deep side."""
    return rule != "deep-only", rule != "intuitive-only"


def is_satisfied(rule: str, answers: Answers) -> bool:
    """Whether the rule stops after the newest round.

    Raises:
        ValueError: the rule is unknown or cannot stop anything.
    """
    if rule in ("intuitive-only", "deep-only"):
        return answers.num_rounds >= 1
    if rule == "paper":
        return any(candidate.is_shared for candidate in answers.candidates)
    if rule == "same-round":
        return bool(_same_round(answers))
    raise ValueError(f"rule {rule!r} cannot stop mutual feedback")


def choose_answer(rule: str, answers: Answers, *, agreed: bool) -> str | None:
    """The final answer: the agreed one, or without agreement the plurality of the pooled votes.

    `max` keeps the first of equals, and candidates are in order of first appearance.
    """
    if agreed and rule == "same-round":
        return _same_round(answers)[0].text
    pool = answers.candidates
    if agreed and rule == "paper":
        pool = [candidate for candidate in pool if candidate.is_shared]
        return max(pool, key=lambda candidate: candidate.num_votes).text
    return max(pool, key=lambda candidate: candidate.weighted_votes).text if pool else None


def _same_round(answers: Answers) -> list[Candidate]:
    newest = answers.num_rounds - 1
    return [
        candidate
        for candidate in answers.candidates
        if candidate.intuitive_rounds[-1:] == [newest] and candidate.deep_rounds[-1:] == [newest]
    ]
