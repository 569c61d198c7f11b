r"""The claims of a line of reasoning: each equal sign between two stretches of arithmetic.

    [claim.text for claim in claims_of("She sold 48/2 = <<48/2=24>>24 clips in May.")]
    # ["48/2 = 24", "48/2 = 24"]: one in the words, one in the note

GSM8K's notes for a calculator (`<<48/2=24>>`) are claims of their own. What is no arithmetic is no
claim: equations with unknowns, statements such as "1 pack = 6 cans", sides that do not begin or
end clearly. `lorid.method.departures` judges what is left.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from lorid.method.arithmetic import Rounding, agree, values_of
from lorid.method.sides import Side, sides_of
from lorid.method.signs import Kind, signs_of

MAX_LINE_CHARS = 2000
_EQUALS = re.compile(r"[=\u2248]|equal|\\approx|\\simeq")
_OTHER_NUMBERS = re.compile(r"mod\b|\bbase (?:\d|two\b)|\bmodulo\b|\\equiv|\u2261", re.IGNORECASE)
_NOTE = re.compile(r"<<([^<>\n]{1,200})>>")
_MARKER = re.compile(r"\s*(?:[-*\u2022+>]\s+|\(?(?:\d{1,2}|[a-zA-Z])[.)]\s+|#{1,6}\s+)+")
_ABOUT = re.compile(r"approx|estimat|round|nearest|\u2248|simeq|\.\.\.|\u2026", re.IGNORECASE)
# Words by which people leave the rest of a division out, or speak loosely.
_LOOSE = re.compile(
    r"about|around|nearly|almost|ceil|floor|whole|full|complete|at least|at most|close to|up to"
    r"|remain|left ?over|extra|only",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """`left` = `right`, as they stand in `line`."""

    line: str
    left: Side
    right: Side
    rounding: Rounding = Rounding.SHOWN

    @property
    def text(self) -> str:
        """The claim as written."""
        return f"{_written(self.line, self.left)} = {_written(self.line, self.right)}"

    @property
    def holds(self) -> bool:
        """Whether any reading of it holds; also where none can be computed."""
        return agree(self.left, self.right, rounding=self.rounding)

    @property
    def expected(self) -> str:
        """What the left side is exactly; the right one where the left is a single number."""
        side = self.left if self.left.has_operator else self.right
        return exact(side)


def claims_of(line: str) -> Iterator[Claim]:
    """The claims of one line, in order."""
    if len(line) > MAX_LINE_CHARS or not _EQUALS.search(line):
        return
    prose = _NOTE.sub(lambda found: " " * len(found[0]), line)
    marker = _MARKER.match(prose)
    if marker:
        prose = " " * marker.end() + prose[marker.end() :]
    loose = Rounding.LOOSE if _LOOSE.search(prose) else Rounding.SHOWN
    rounding = Rounding.ABOUT if _ABOUT.search(prose) else loose
    yield from _claims(prose, rounding=rounding)
    for found in _NOTE.finditer(line):
        yield from _claims(found[1], rounding=rounding)


def _claims(line: str, *, rounding: Rounding) -> Iterator[Claim]:
    if _OTHER_NUMBERS.search(line):
        return
    sides = sides_of(signs_of(line))
    for left, right in pairwise(sides):
        is_pair = left.precedes and right.follows and right.index == left.index + 1
        if is_pair and left.begins and right.ends and _is_arithmetic(left, right):
            yield Claim(line=line, left=left, right=right, rounding=rounding)


def _is_arithmetic(left: Side, right: Side) -> bool:
    if not left.has_operator and not _is_plain(left, right):
        return False
    # "48 = 100% + 20%": of what, is said elsewhere.
    if not _has_percent(left) and _is_of_percentages(right):
        return False
    if not _has_percent(right) and _is_of_percentages(left):
        return False
    if _is_share(left) and not any(value < 1 for value in values_of(right)[:1]):
        return False
    # "5 apples + 3 pears = 5 * 2 + 3 * 1": the words stand for prices.
    if left.has_units and right.has_operator and not right.has_units:
        return False
    is_sum = any(sign.kind is Kind.OPERATOR and sign.text in "+-" for sign in left.signs)
    return not (is_sum and left.has_units and right.is_money != left.is_money)


def _is_plain(left: Side, right: Side) -> bool:
    """`15 = 3 * 5`; not "1% = 15 / 3", and not "age in 5 years = 10 + 5"."""
    is_bare = left.is_alone and not left.has_units and not _has_percent(left)
    return is_bare and right.has_operator and not _is_share(right)


def _has_percent(side: Side) -> bool:
    return any(sign.kind is Kind.PERCENT for sign in side.signs)


def _is_of_percentages(side: Side) -> bool:
    kinds = [sign.kind for sign in side.signs]
    numbers = [at for at, kind in enumerate(kinds) if kind is Kind.NUMBER]
    return all(kinds[at + 1 : at + 2] == [Kind.PERCENT] for at in numbers)


def _is_share(side: Side) -> bool:
    """`3/4`, `1/2 cup`: of what, is said elsewhere: "3/4 = $15"."""
    signs = side.signs
    if len(signs) != 3 or signs[1].text != "/":
        return signs[0].kind is Kind.FRACTION and signs[-1].kind is Kind.CLOSE
    return len(signs[2].text) <= 2 and any(value < 1 for value in values_of(side)[:1])


def _written(line: str, side: Side) -> str:
    start, end = side.signs[0].start, side.signs[-1].end
    text = " ".join(line[start:end].split())
    # In LaTeX a dollar opens mathematics.
    return text.removeprefix("$") if "\\" in line else text


def exact(side: Side) -> str:
    """The plainest value of a side: "24", "0.2", "10/3"."""
    value = values_of(side)[0]
    denominator = value.denominator
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    if denominator != 1:
        return f"{value.numerator}/{value.denominator}"
    places = 0
    while (value * 10**places).denominator != 1:
        places += 1
    digits = f"{abs(value.numerator) * 10**places // value.denominator:0{places + 1}d}"
    whole, part = (digits[:-places], digits[-places:]) if places else (digits, "")
    return ("-" if value < 0 else "") + whole + (f".{part}" if part else "")
