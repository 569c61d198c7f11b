"""Figures over scored problems, and what the logged attempts hold whatever the rule.

    scores = replay(attempts, policy=policy, checker=checker)
    summary = summarize(scores, policy=policy)
    pass_at_k([judge(item, checker) for item in attempts], max_rounds=20)

Accuracies are shares of the problems that have a label. The label is read here and by
`paper-oracle`; no other rule ever sees it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from lorid.method.attempts import JudgedAttempts
from lorid.method.replay import ProblemScore
from lorid.method.stopping import Outcome, Policy

Z_95 = 1.959963984540054
TAIL_95 = 0.025


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures over problems, as shares of 1.

    `accuracy` is over the `num_labelled` problems with a label, None without any; problems without
    an answer count as wrong. `interval` is its bootstrap interval and `wilson_interval` Wilson's,
    both at 95%. `coverage` is the share of problems on which the rule agreed; for `majority` and
    the rules of one side, which need no agreement, the share with an answer.
    """

    rule: str
    max_rounds: int
    num_problems: int
    num_labelled: int
    accuracy: float | None
    coverage: float
    accuracy_when_agreed: float | None
    mean_rounds: float
    mean_generations: float
    interval: tuple[float, float]
    wilson_interval: tuple[float, float]
    rounds_histogram: dict[int, int]

    def to_dict(self) -> dict[str, Any]:
        """As `lorid replay --json` prints it."""
        lists = {"interval": list(self.interval), "wilson_interval": list(self.wilson_interval)}
        return {**asdict(self), **lists}


@dataclass(frozen=True, kw_only=True)
class AtK:
    """A figure for k attempts of a pool, over the problems that it is defined for."""

    k: int
    value: float
    num_problems: int


def summarize(scores: Sequence[ProblemScore], *, policy: Policy) -> Summary:
    """Figures over problems; without any problem the means are 0."""
    count = len(scores)
    labelled = [score for score in scores if score.correct is not None]
    agreed = [score for score in scores if score.outcome is Outcome.AGREED]
    num_correct = sum(score.correct is True for score in labelled)
    return Summary(
        rule=policy.rule,
        max_rounds=policy.max_rounds,
        num_problems=count,
        num_labelled=len(labelled),
        accuracy=accuracy_of(scores),
        coverage=len(agreed) / count if count else 0.0,
        accuracy_when_agreed=accuracy_of(agreed),
        mean_rounds=sum(score.num_rounds for score in scores) / count if count else 0.0,
        mean_generations=sum(score.num_generations for score in scores) / count if count else 0.0,
        interval=bootstrap_interval(num_correct, len(labelled)),
        wilson_interval=wilson_interval(num_correct, len(labelled)),
        rounds_histogram=dict(sorted(Counter(score.num_rounds for score in scores).items())),
    )


def accuracy_of(scores: Sequence[ProblemScore]) -> float | None:
    """The share of right answers among problems with a label; None without any."""
    labelled = [score for score in scores if score.correct is not None]
    if not labelled:
        return None
    return sum(score.correct is True for score in labelled) / len(labelled)


def bootstrap_interval(num_correct: int, count: int) -> tuple[float, float]:
    """The 95% percentile bootstrap interval of a share (Efron 1979); (0, 1) without data.

    Resampling `count` zeros and ones with replacement makes the number of ones binomial, so the
    percentiles are taken from that distribution itself: what endless resamples tend to, without
    drawing any. No seed is needed. Where all are right, or none, it has no width.
    """
    if not count:
        return 0.0, 1.0
    if num_correct in (0, count):
        return num_correct / count, num_correct / count
    share = num_correct / count
    total, bounds = 0.0, [0, count]
    for number in range(count + 1):
        below, total = total, total + _binomial(number, count, share)
        if below < TAIL_95 <= total:
            bounds[0] = number
        if below < 1 - TAIL_95 <= total:
            bounds[1] = number
            break
    return bounds[0] / count, bounds[1] / count


def wilson_interval(num_correct: int, count: int) -> tuple[float, float]:
    """Wilson's 95% score interval of a share (Wilson 1927); (0, 1) without data."""
    if not count:
        return 0.0, 1.0
    share, z2 = num_correct / count, Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    # At shares of 0 and 1 rounding could push a bound past the share itself.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def pass_at_k(attempts: Sequence[JudgedAttempts], *, max_rounds: int) -> list[AtK]:
    """The chance that k attempts of a problem's pool hold a right one, for every k.

    A problem's pool is all its intuitive and all its deep attempts of the first `max_rounds`
    rounds; those without an answer are wrong ones. Of n attempts with c right ones the unbiased
    estimate is 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374). The mean is over the
    problems with a label and at least k attempts.
    """
    counts: list[tuple[int, int]] = []
    for item in attempts:
        pool = list(pooled(item, max_rounds=max_rounds))
        if item.right is not None:
            counts.append((len(pool), sum(answer in item.right for answer in pool)))
    figures: list[AtK] = []
    for k in range(1, max((count for count, _ in counts), default=0) + 1):
        values = [_pass_at_k(count, right, k) for count, right in counts if count >= k]
        figures.append(AtK(k=k, value=sum(values) / len(values), num_problems=len(values)))
    return figures


def majority_at_k(attempts: Sequence[JudgedAttempts], *, max_rounds: int) -> list[AtK]:
    """The accuracy of the most frequent answer among the first k attempts of the pool, for every k.

    The pool is that of `pass_at_k`, in the order drawn: round by round, the intuitive attempt
    first; the first of equally frequent answers is taken. A problem with fewer attempts uses all it
    has. With both sides drawn, k = 2n is the rule `majority` after n rounds.
    """
    labelled = [item for item in attempts if item.right is not None]
    curves = [_majority_curve(item, max_rounds=max_rounds) for item in labelled]
    figures: list[AtK] = []
    for k in range(1, max((len(curve) for curve in curves), default=0) + 1):
        num_right = sum(curve[min(k, len(curve)) - 1] for curve in curves if curve)
        figures.append(AtK(k=k, value=num_right / len(labelled), num_problems=len(labelled)))
    return figures


def pooled(item: JudgedAttempts, *, max_rounds: int) -> Iterator[int | None]:
    """The answers of both sides in the order drawn."""
    for index in range(min(max_rounds, max(len(item.intuitive), len(item.deep)))):
        for side in (item.intuitive, item.deep):
            if index < len(side):
                yield side[index]


def _majority_curve(item: JudgedAttempts, *, max_rounds: int) -> list[bool]:
    votes: Counter[int] = Counter()
    leader: int | None = None
    curve: list[bool] = []
    for answer in pooled(item, max_rounds=max_rounds):
        if answer is not None:
            votes[answer] += 1
            # Classes are numbered in order of first appearance.
            if leader is None or (-votes[answer], answer) < (-votes[leader], leader):
                leader = answer
        curve.append(item.is_right(leader) is True)
    return curve


@lru_cache(maxsize=65536)
def _pass_at_k(count: int, right: int, k: int) -> float:
    return 1 - math.comb(count - right, k) / math.comb(count, k)


def _binomial(number: int, count: int, share: float) -> float:
    ways = math.lgamma(count + 1) - math.lgamma(number + 1) - math.lgamma(count - number + 1)
    return math.exp(ways + number * math.log(share) + (count - number) * math.log1p(-share))
