"""When to checkpoint: every so many steps, or after so many minutes, whichever comes first.

pace = Pace(every_steps=200, minutes=10)
if pace.is_due(step): save(); pace.saved(step)
"""

import time
from dataclasses import dataclass, field


@dataclass
class Pace:
    """How far the last checkpoint is behind."""

    every_steps: int
    minutes: float | None = None
    step: int | None = None
    moment: float = field(default_factory=time.monotonic)

    def is_due(self, step: int) -> bool:
        """Whether step `step`, just taken, should be saved."""
        is_late = self.minutes is not None and time.monotonic() - self.moment > 60 * self.minutes
        return is_late or step % self.every_steps == 0

    def saved(self, step: int) -> None:
        """Note a checkpoint."""
        self.step, self.moment = step, time.monotonic()

    def last_checkpoint(self) -> str:
        """For messages: where a rerun would go on."""
        if self.step is None:
            return "this attempt has saved no checkpoint"
        return f"the last checkpoint is of step {self.step}"
