"""Whether a confidence means what it says.

    calibration = calibrate(scores)
    calibration.brier            # 0 is perfect; always saying 0.5 is 0.25

Only problems with a label and an answer have a confidence to check. Under `bayes` it is a
probability; under other rules it is a share of votes, and the table shows how far that is from one.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lorid.method.replay import ProblemScore

NUM_BINS = 10


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The answers whose confidence is at least `low` and below `high` (the last bin holds 1)."""

    low: float
    high: float
    num_answers: int
    mean_confidence: float
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The reliability table, without its empty bins, and the Brier score; None without answers."""

    num_answers: int
    brier: float | None
    bins: tuple[Bin, ...]

    def to_dict(self) -> dict[str, Any]:
        """As `lorid replay --json` prints it."""
        return {**asdict(self), "bins": [asdict(one) for one in self.bins]}


def calibrate(scores: Sequence[ProblemScore]) -> Calibration:
    """Confidence against truth.

    The Brier score is the mean of (confidence - truth)^2 with truth 1 for a right answer and 0 for
    a wrong one (Brier 1950).
    """
    pairs = [
        (score.confidence, score.correct)
        for score in scores
        if score.confidence is not None and score.correct is not None
    ]
    errors = [(confidence - correct) ** 2 for confidence, correct in pairs]
    bins: list[Bin] = []
    for number in range(NUM_BINS):
        held = [pair for pair in pairs if min(int(pair[0] * NUM_BINS), NUM_BINS - 1) == number]
        if held:
            bins.append(
                Bin(
                    low=number / NUM_BINS,
                    high=(number + 1) / NUM_BINS,
                    num_answers=len(held),
                    mean_confidence=sum(confidence for confidence, _ in held) / len(held),
                    accuracy=sum(correct for _, correct in held) / len(held),
                )
            )
    brier = sum(errors) / len(errors) if errors else None
    return Calibration(num_answers=len(pairs), brier=brier, bins=tuple(bins))
