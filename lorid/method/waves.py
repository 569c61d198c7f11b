"""How many rounds of a question are at work at once.

    waves = Waves(max_rounds=4, load=lambda: 0.3)
    mutual_feedback(question, policy=policy, checker=checker, waves=waves)

Rounds that start early save waiting and may be wasted; they never change what is decided, since
rounds are judged in their order. The width follows three things: how many rounds the rule cannot do
without, how soon the answers so far promise an agreement, and how much of the engine is free.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from lorid.method.stopping import Policy, Tally, fewest_rounds_to_come


def idle() -> float:
    """The load of an engine that does nothing else."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Waves:
    """At most `max_rounds` undecided rounds at work; 1 is lazy: one after the other.

    `load` tells how busy the engine is, from 0 (idle) to 1 (full): a full engine works on one
    round of a question at a time. It may be called from any thread.
    """

    max_rounds: int = 1
    load: Callable[[], float] = idle

    def width(self, policy: Policy, tally: Tally) -> int:
        """How many undecided rounds may be at work now; at least 1."""
        if self.max_rounds <= 1:
            return 1
        free = 1.0 - min(1.0, max(0.0, self.load()))
        allowed = max(1, math.ceil(self.max_rounds * free))
        return min(allowed, max(fewest_rounds_to_come(policy, tally), rounds_to_agreement(tally)))


LAZY = Waves()


def rounds_to_agreement(tally: Tally) -> int:
    """A guess at how many more rounds it takes, from the agreement among the answers so far.

    The chance that an answer repeats one that was seen is 1 - (answers seen once) / (all answers)
    (Good 1953), here with one repeat and one new answer added (Laplace); the guess is one by it,
    rounded. Without any answer yet it is 2; the more answers come only once, the more rounds.
    """
    total = tally.num_votes
    seen_once = sum(votes.total == 1 for votes in tally.votes.values())
    return round((total + 2) / (total - seen_once + 1))
