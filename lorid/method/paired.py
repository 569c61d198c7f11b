"""Two methods on the same questions: the paired bootstrap of their difference, and McNemar's test.

    paired = compare_pairs(ours, theirs)        # problem_id -> right or not
    paired.difference, paired.interval, paired.p_value

Questions that both get right, or both wrong, say nothing about which is better; how many only one
of them gets right decides. Nothing is drawn at random, so the same attempts give the same figures.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from lorid.method.replay import ProblemScore

TAIL_95 = 0.025
WIDTH_SD = 6
"""How far from its mean a count is looked at, in standard deviations; beyond lies 1e-8."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A against B over the questions that both have with a label.

    `difference` is A's accuracy less B's, `interval` its 95% bootstrap interval, `p_value` that of
    McNemar's exact test, two-sided: the chance of so uneven a split if both were equally good.
    """

    num_problems: int
    num_both: int
    num_only_a: int
    num_only_b: int
    difference: float
    interval: tuple[float, float]
    p_value: float

    @property
    def num_neither(self) -> int:
        """Questions that both get wrong."""
        return self.num_problems - self.num_both - self.num_only_a - self.num_only_b

    def to_dict(self) -> dict[str, Any]:
        """As files and `lorid replay --json` hold it."""
        return {**asdict(self), "interval": list(self.interval)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Paired":
        """The inverse of `to_dict`; other fields are passed over."""
        known: dict[str, Any] = {field.name: row[field.name] for field in fields(cls)}
        low, high = known.pop("interval")
        return cls(**known, interval=(low, high))

    def to_flat(self) -> dict[str, float]:
        """The same without a list, for a record's details."""
        low, high = self.interval
        rest = {name: value for name, value in asdict(self).items() if name != "interval"}
        return {**rest, "low": low, "high": high}

    def told(self) -> str:
        """In one line, such as `+3.2 points (+0.4 to +6.0), p 0.03, over 200 questions`."""
        low, high = self.interval
        return (
            f"{100 * self.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}), "
            f"p {self.p_value:.2g}, over {self.num_problems:,} questions"
        )


def rights_of(scores: Sequence[ProblemScore]) -> dict[str, bool]:
    """Whether each problem with a label was answered right."""
    return {one.problem_id: one.correct for one in scores if one.correct is not None}


def compare_pairs(ours: Mapping[str, bool], theirs: Mapping[str, bool]) -> Paired:
    """A and B over the problems that both have."""
    shared = [name for name in ours if name in theirs]
    num_both = sum(ours[name] and theirs[name] for name in shared)
    only_a = sum(ours[name] and not theirs[name] for name in shared)
    only_b = sum(theirs[name] and not ours[name] for name in shared)
    return Paired(
        num_problems=len(shared),
        num_both=num_both,
        num_only_a=only_a,
        num_only_b=only_b,
        difference=(only_a - only_b) / len(shared) if shared else 0.0,
        interval=paired_interval(only_a, only_b, len(shared)),
        p_value=mcnemar(only_a, only_b),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test (1947): the split of the questions that only one gets right.

    If both were equally good it would be that of a fair coin, so the p-value is a binomial sum.
    """
    count = only_a + only_b
    tail, ways = 0, 1
    for number in range(min(only_a, only_b) + 1):
        tail += ways
        ways = ways * (count - number) // (number + 1)  # C(count, number + 1), exactly
    return min(1.0, 2 * tail / 2**count)


def paired_interval(only_a: int, only_b: int, count: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of the difference of two shares; (-1, 1) without data.

    Resampling questions with replacement makes the counts (only A, only B, neither of these)
    multinomial, so the percentiles are taken from that distribution itself: what endless resamples
    tend to. Where only one of them ever is right alone, the interval ends at nothing on its side.
    """
    if not count:
        return -1.0, 1.0
    chances: dict[int, float] = {}
    for ours in _likely(only_a, count):
        for theirs in _likely(only_b, count):
            if ours + theirs <= count:
                chance = _multinomial(ours, theirs, count, shares=(only_a / count, only_b / count))
                chances[ours - theirs] = chances.get(ours - theirs, 0.0) + chance
    whole, total = sum(chances.values()), 0.0
    low = high = None
    for number in sorted(chances):
        total += chances[number] / whole
        if low is None and total >= TAIL_95:
            low = number
        if high is None and total >= 1 - TAIL_95:
            high = number
    return (low or 0) / count, (high or 0) / count


def _likely(number: int, count: int) -> range:
    """The values that a binomial count with this mean takes, but for impossible luck."""
    if number in (0, count):
        return range(number, number + 1)
    width = math.ceil(WIDTH_SD * math.sqrt(number * (1 - number / count))) + WIDTH_SD
    return range(max(0, number - width), min(count, number + width) + 1)


def _multinomial(ours: int, theirs: int, count: int, *, shares: tuple[float, float]) -> float:
    rest = count - ours - theirs
    logarithm = math.lgamma(count + 1)
    for number, share in ((ours, shares[0]), (theirs, shares[1]), (rest, 1 - sum(shares))):
        if number and share <= 0:
            return 0.0
        logarithm += (number * math.log(share) if number else 0.0) - math.lgamma(number + 1)
    return math.exp(logarithm)
