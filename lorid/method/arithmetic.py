r"""Whether the two sides of an equal sign have one value: exact rationals, several readings.

    values_of(side)[0]                    # Fraction(1, 4) for "25%"
    agree(left, right, rounding=Rounding.SHOWN)    # True where any plain reading of both holds

Prose is read in more than one way: "30 minutes + 1 hour = 90 minutes" holds by its units, "3/12 x
100 = 25%" without its percent sign, "$50 - 20% = $40" by a share of what stands before. A claim is
false only when no reading of it holds. Nothing is evaluated but `lorid.method.rationals`, whose
numbers, powers and depth are bounded.
"""

from collections.abc import Iterator
from enum import Enum, auto
from fractions import Fraction
from itertools import product

from lorid.method.quantities import SCALES
from lorid.method.rationals import rational
from lorid.method.sides import Side
from lorid.method.signs import Kind
from lorid.method.units import Unit, ratio_of_units, unit_of

MAX_POWER_DIGITS = 3
MAX_SPOKEN = 20
ABOUT = Fraction(1, 20)
ROUNDED = Fraction(1, 100)
# Each unit as a number of one other unit of its kind, so that any two of a kind have a ratio.
_BASES = tuple(
    unit_of(name)
    for name in ("second", "meter", "gram", "ounce", "liter", "cup", "dollar", "month", "percent")
)
_COINS = {
    "quarter": Fraction(1, 4), "dime": Fraction(1, 10), "nickel": Fraction(1, 20),
    "penny": Fraction(1, 100),
}  # fmt: skip
_GROUPS = {"pair": 2, "couple": 2, "half": Fraction(1, 2), "decade": 10, "century": 100}
# How many of one make another, as problems use them; also where the other one is not written.
_CONVERSIONS = {
    "second": (60,), "minute": (60,), "hour": (24, 60, 3600), "day": (7, 24, 30, 365),
    "week": (4, 7, 52), "month": (4, 12, 30), "year": (12, 52, 365), "inch": (12, 36),
    "foot": (3, 12, 5280), "yard": (3, 36), "mile": (5280,), "centimeter": (10, 100),
    "millimeter": (10, 1000), "meter": (100, 1000), "kilometer": (1000,), "gram": (1000,),
    "kilogram": (1000,), "milligram": (1000,), "ounce": (8, 16, 128), "pound": (16, 2000),
    "milliliter": (1000,), "liter": (1000,), "cup": (2, 4, 8, 16), "pint": (2, 8),
    "quart": (2, 4), "gallon": (4, 8, 16), "cent": (100,), "dollar": (100,), "percent": (100,),
}  # fmt: skip


class Rounding(Enum):
    """How far a written number may lie from the exact one.

    SHOWN: as far as its digits say. LOOSE: a number that is no integer also by less than one.
    ABOUT: by a twentieth.
    """

    SHOWN = auto()
    LOOSE = auto()
    ABOUT = auto()


def agree(left: Side, right: Side, *, rounding: Rounding) -> bool:
    """Whether some reading of the two sides makes them equal, up to the rounding that is shown."""
    lefts, rights = values_of(left), values_of(right)
    if not lefts or not rights or lefts[0] == rights[0]:
        return True
    pairs = list(product(lefts, rights + _beginnings(right)))
    nearness = _Nearness(left, right, rounding=rounding)
    return any(nearness.near(one, other) for one, other in pairs) or _by_units(left, right, pairs)


def values_of(side: Side) -> list[Fraction]:
    """The side's values in all readings, the plainest first; none when it is out of bounds."""
    texts = dict.fromkeys(_texts(side))
    values = (rational(text) for text in texts)
    return list(dict.fromkeys(value for value in values if value is not None))


def _beginnings(right: Side) -> list[Fraction]:
    """What begins it: "3 * 5 = 15 + 3 = 18" is a running total, "= 1/3 of $150" a share."""
    values: list[Fraction] = []
    first = right.signs[0]
    if right.has_operator and first.kind is Kind.NUMBER:
        value = rational(first.text)
        values += [] if value is None else [value]
    of = next((at for at, sign in enumerate(right.signs) if sign.text == "*" and sign.is_spoken), 0)
    if of:
        values += values_of(Side(index=right.index, signs=right.signs[:of]))
    return values


# Readings -----------------------------------------------------------------------------------------


def _texts(side: Side) -> Iterator[str]:
    if _has_large_power(side):
        return
    has_percent = any(sign.kind is Kind.PERCENT for sign in side.signs)
    yield "".join(_parts(side))
    if has_percent:
        yield "".join(_parts(side, percent=""))
        yield _relative(side)
    if any(_factor(words) != 1 for words in side.units.values()):
        yield "".join(_parts(side, by_units=True))
    if sum(sign.text == "/" for sign in side.signs) > 1:
        yield "".join(_parts(side, is_tight=True))
    if any(sign.is_spoken and sign.kind is Kind.OPERATOR for sign in side.signs):
        yield _from_left(_parts(side))
        yield _from_right(_parts(side))


def _has_large_power(side: Side) -> bool:
    signs = side.signs
    return any(
        sign.text == "^" and any(len(one.text) > MAX_POWER_DIGITS for one in signs[at + 1 : at + 2])
        for at, sign in enumerate(signs)
    )


def _parts(
    side: Side, *, percent: str = "/100", by_units: bool = False, is_tight: bool = False
) -> list[str]:
    """The side in the spelling of `rational`: an operand or an operator a part.

    `is_tight` reads `2 / 1/3`, by its spaces, as 6.
    """
    parts: list[str] = []
    for place, sign in enumerate(side.signs):
        if sign.kind is Kind.PERCENT:
            parts[-1] = f"({parts[-1]}{percent})" if parts[-1] != ")" else f"){percent}"
            continue
        text = {"*": "\\cdot "}.get(sign.text, sign.text)
        factor = _factor(side.units.get(place, ())) if by_units else Fraction(1)
        if factor != 1 and sign.kind is Kind.NUMBER:
            text = f"({text}\\cdot {factor.numerator}/{factor.denominator})"
        elif factor != 1 and sign.kind is Kind.CLOSE:
            text = f")\\cdot ({factor.numerator}/{factor.denominator})"
        parts.append(text)
        if is_tight and place > 1 and sign.kind is Kind.NUMBER and _is_tight(side, place):
            parts[-3:] = [f"({parts[-3]}/{text})"]
    return parts


def _is_tight(side: Side, place: int) -> bool:
    top, slash, bottom = side.signs[place - 2 : place + 1]
    is_fraction = top.kind is Kind.NUMBER and slash.text == "/"
    return is_fraction and top.end == slash.start and slash.end == bottom.start


def _relative(side: Side) -> str:
    """`50 - 20%` as 80% of 50."""
    parts = _parts(side)
    is_last = side.signs[-1].kind is Kind.PERCENT
    if not is_last or len(parts) < 3 or parts[-2] not in ("+", "-"):
        return "".join(parts)
    return f"({''.join(parts[:-2])})(1{parts[-2]}{parts[-1]})"


_STEPS = frozenset(("+", "-", "/", "^", "\\cdot "))


def _from_left(parts: list[str]) -> str:
    """`5 plus 3 times 2` as it is spoken: 16."""
    if not _is_flat(parts):
        return "".join(parts)
    text = ""
    for place, part in enumerate(parts):
        text = f"({text}){part}" if part in _STEPS and place else text + part
    return text


def _from_right(parts: list[str]) -> str:
    """`12 divided by 2 + 1` as it may be meant: 4."""
    if not _is_flat(parts):
        return "".join(parts)
    text = ""
    for part in reversed(parts):
        text = f"{part}({text})" if part in _STEPS else part + text
    return text


def _is_flat(parts: list[str]) -> bool:
    return len(parts) <= MAX_SPOKEN and not any(part in ("(", "{", "\\frac") for part in parts)


def _factor(words: tuple[str, ...]) -> Fraction:
    """What the unit makes of a number: 60 of minutes, 1/3600 of "per hour"."""
    factor = Fraction(1)
    is_below = False
    for word in words:
        if word in ("per", "a", "an", "each", "every"):
            is_below = True
            continue
        one = _unit_factor(word)
        factor = factor / one if is_below else factor * one
        is_below = is_below and one == 1 and word in ("single",)
    return factor


def _unit_factor(word: str) -> Fraction:
    unit = unit_of(word)
    if not _known(word):
        name = unit.words[0] if unit.words else word
        scale = SCALES.get(word) or SCALES.get(name) or _GROUPS.get(name)
        return Fraction(scale) if scale else _COINS.get(name, Fraction(1))
    return next(
        (ratio for base in _BASES if (ratio := _ratio(unit, base)) is not None), Fraction(1)
    )


def _ratio(unit: Unit, base: Unit) -> Fraction | None:
    if unit.known == base.known:
        return Fraction(1, 100) if base.known == ("percent",) else Fraction(1)
    return ratio_of_units(unit, base)


# Nearness -----------------------------------------------------------------------------------------


class _Nearness:
    """Equal, or equal once rounded to what is shown."""

    def __init__(self, left: Side, right: Side, *, rounding: Rounding) -> None:
        self.shown = _last_place(left), _last_place(right)
        is_rough = any("." in sign.text for side in (left, right) for sign in side.signs)
        both = left.has_operator and right.has_operator
        self.rounding = rounding
        self.relative = ROUNDED if both and is_rough else Fraction(0)

    def near(self, one: Fraction, other: Fraction) -> bool:
        """Whether two values of the sides may be one."""
        gap = abs(one - other)
        if not gap or gap <= self.relative * max(abs(one), abs(other)):
            return True
        if self.rounding is Rounding.ABOUT and gap <= ABOUT * max(abs(one), abs(other)):
            return True
        is_whole = one.denominator == other.denominator == 1
        if self.rounding is not Rounding.SHOWN and not is_whole and gap < 1:
            return True
        return _is_rounded(other, one, self.shown[0]) or _is_rounded(one, other, self.shown[1])


def _is_rounded(exact: Fraction, shown: Fraction, last_place: Fraction | None) -> bool:
    """Whether `shown` is the exact value with fewer places: rounded, or with places cut off."""
    if last_place is None:
        return False
    gap = abs(exact - shown)
    is_cut = last_place < 1 and abs(shown) < abs(exact) and gap < last_place
    return is_cut or 2 * gap <= last_place


def _last_place(side: Side) -> Fraction | None:
    """What a step of the last digit of a single number is worth; None for anything else."""
    numbers = [sign.text for sign in side.signs if sign.kind is Kind.NUMBER]
    is_single = len(numbers) == 1 and not side.has_operator and "/" not in numbers[0]
    if not is_single:
        return None
    is_percent = any(sign.kind is Kind.PERCENT for sign in side.signs)
    places = len(numbers[0].partition(".")[2]) + 2 * is_percent
    return Fraction(1, 10**places)


def _by_units(left: Side, right: Side, pairs: list[tuple[Fraction, Fraction]]) -> bool:
    """Whether the gap is a conversion between units that are written there."""
    words = [word for side in (left, right) for unit in side.units.values() for word in unit]
    ratios: set[Fraction] = set()
    for word in set(words):
        name = next(iter(_known(word)), "")
        ratios |= {Fraction(one) for one in _CONVERSIONS.get(name, ())}
        ratios.add(_unit_factor(word))
    if {"square", "sq", "cubic"} & set(words):
        ratios |= {ratio**power for ratio in ratios for power in (2, 3)}
    ratios |= {1 / ratio for ratio in ratios}
    return any(one and other and one / other in ratios for one, other in pairs)


def _known(word: str) -> tuple[str, ...]:
    return () if word == "in" else unit_of(word).known
