r"""Where a rationale first departs: the first line whose arithmetic does not hold.

    check_rationale("He has 3 + 4 = 7 pens.\nHe gives 2 away: 7 - 2 = 4.")
    # Departure(line=2, text="He gives 2 away: 7 - 2 = 4.", claim="7 - 2 = 4", expected="5")

Arithmetic alone is judged, exactly, and only where the text says it plainly: an accusation must be
right, so what can be read in a way that holds is let pass (`lorid.method.claims`). A rationale may
still be wrong where this finds nothing. The text is not trusted: it is bounded and never evaluated
as code.
"""

from dataclasses import dataclass

from lorid.method.claims import claims_of
from lorid.method.problems import MAX_TEXT_CHARS

MAX_LINES = 500


@dataclass(frozen=True, kw_only=True)
class Departure:
    """The line, counted from 1; its claim `left = right` as written; what it is exactly."""

    line: int
    text: str
    claim: str
    expected: str


def check_rationale(text: str) -> Departure | None:
    """The first line that claims what does not hold; None when no claim is found to be false."""
    for number, line in enumerate(text[:MAX_TEXT_CHARS].split("\n")[:MAX_LINES], start=1):
        for claim in claims_of(line):
            if not claim.holds:
                return Departure(
                    line=number, text=line.strip(), claim=claim.text, expected=claim.expected
                )
    return None
