r"""Whether two answers are equal: exactly, safely and symmetrically.

    with AnswerChecker() as checker:
        checker.equal("0.5", r"\frac{1}{2}")   # True

Two layers: an exact normal form of the text, and exact rational arithmetic for numbers (integers,
decimals, fractions, mixed numbers; a percentage is a kind of its own). Both sides go through the
same function and the results are compared, so equality is reflexive and symmetric by construction.
Nothing is evaluated: text from models is never code. There is no symbolic layer yet, so `x+1` and
`1+x` differ.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import TracebackType
from typing import Self

# Longer texts are compared by their normal form alone; longer digit strings are not arithmetic.
MAX_NUMBER_CHARS = 200
MAX_EXPONENT = 300
_MINUS_SIGNS = dict.fromkeys(
    map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212\ufe58\ufe63\uff0d"), "-"
)
_DROPPED = re.compile(
    r"\\left|\\right|\\!|\\,|\\;|\\:|\\ |\\quad|\\displaystyle|\\\$|[$\u20ac\u00a3\u00a5]|~"
)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\{([^{}]*)\}")
_FRACTION = re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}|\\[dt]?frac(\d)(\d)")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_DECIMAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE]([-+]?\d{1,4}))?")
_RATIO = re.compile(r"([-+]?\d+)/([-+]?\d+)")
_MIXED = re.compile(r"(-?)(\d+) (\d+)/(\d+)")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether two answers are equal, and by which reason."""

    equal: bool
    reason: str


@dataclass(frozen=True)
class _Canonical:
    kind: str
    value: Fraction | str


class AnswerChecker:
    """Decides whether answers are equal; stateless, usable from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None

    def equal(self, a: str, b: str) -> bool:
        """Whether two answers are equal."""
        return self.verdict(a, b).equal

    def equal_many(self, pairs: Iterable[tuple[str, str]]) -> list[bool]:
        """`equal` for each pair, in order."""
        return [self.equal(a, b) for a, b in pairs]

    def verdict(self, a: str, b: str) -> Verdict:
        """Equality with its reason."""
        if a == b:
            return Verdict(equal=True, reason="identical")
        one, other = _canonical(a), _canonical(b)
        if one.kind != other.kind:
            return Verdict(equal=False, reason=f"{one.kind} and {other.kind}")
        is_equal = one.value == other.value
        how = "as text" if one.kind == "text" else "as rationals"
        return Verdict(equal=is_equal, reason=f"{'equal' if is_equal else 'different'} {how}")


@lru_cache(maxsize=65536)
def _canonical(answer: str) -> _Canonical:
    text = _normal_form(answer)
    kind, digits = "number", text
    if text.endswith("%"):
        kind, digits = "percentage", text.removesuffix("%").removesuffix("\\").rstrip()
    number = _rational(digits) if len(digits) <= MAX_NUMBER_CHARS else None
    return _Canonical("text", text) if number is None else _Canonical(kind, number)


def _normal_form(answer: str) -> str:
    text = unicodedata.normalize("NFKC", answer).translate(_MINUS_SIGNS).strip()
    text = _TEXT.sub(r"\1", _DROPPED.sub("", text))
    text = _FRACTION.sub(_plain_fraction, text)
    return " ".join(text.split()).rstrip(".").strip().casefold()


def _plain_fraction(match: re.Match[str]) -> str:
    numerator, denominator = match[1] or match[3], match[2] or match[4]
    before = match.string[: match.start()].rstrip()
    # "2\frac{1}{2}" is a mixed number, not 21/2.
    return f"{' ' if before[-1:].isdigit() else ''}{numerator}/{denominator}"


def _rational(text: str) -> Fraction | None:
    if _THOUSANDS.fullmatch(text):
        text = text.replace(",", "")
    if match := _DECIMAL.fullmatch(text):
        if match[1] and abs(int(match[1])) > MAX_EXPONENT:
            return None
        return Fraction(text)
    compact = text.replace(" / ", "/")
    if match := _RATIO.fullmatch(compact):
        return Fraction(int(match[1]), int(match[2])) if int(match[2]) else None
    if (match := _MIXED.fullmatch(compact)) and int(match[4]):
        size = int(match[2]) + Fraction(int(match[3]), int(match[4]))
        return -size if match[1] else size
    return None
