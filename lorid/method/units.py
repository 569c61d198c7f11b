"""Units and other words behind a number: "18 dollars per day", "5 cm^2", "90 degrees".

    ratio_of_units(unit_of("m"), unit_of("centimeters"))   # Fraction(100, 1)

An omitted unit says nothing; two units that are both known must agree, or convert exactly.
"""

import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

# dimension: {unit: (factor to the dimension's base, other spellings)}
_TABLE: dict[str, dict[str, tuple[Fraction | int, str]]] = {
    "length": {
        "millimeter": (Fraction(1, 1000), "mm millimeters millimetre millimetres"),
        "centimeter": (Fraction(1, 100), "cm centimeters centimetre centimetres"),
        "meter": (1, "m meters metre metres"),
        "kilometer": (1000, "km kilometers kilometre kilometres"),
        "inch": (Fraction("0.0254"), "in inches"),
        "foot": (Fraction("0.3048"), "ft feet"),
        "yard": (Fraction("0.9144"), "yd yds yards"),
        "mile": (Fraction("1609.344"), "mi miles"),
    },
    "time": {
        "second": (1, "s sec secs seconds"),
        "minute": (60, "min mins minutes"),
        "hour": (3600, "h hr hrs hours"),
        "day": (86400, "days"),
        "week": (604800, "weeks wk wks"),
    },
    "long time": {"month": (1, "months"), "year": (12, "years yr yrs")},
    "mass": {
        "milligram": (Fraction(1, 1000), "mg milligrams"),
        "gram": (1, "g grams gramme grammes"),
        "kilogram": (1000, "kg kgs kilograms kilo kilos"),
    },
    "weight": {"ounce": (1, "oz ounces"), "pound": (16, "lb lbs pounds")},
    "volume": {
        "milliliter": (Fraction(1, 1000), "ml mL milliliters millilitre millilitres"),
        "liter": (1, "l L liters litre litres"),
    },
    "kitchen": {
        "cup": (1, "cups"), "pint": (2, "pints pt"), "quart": (4, "quarts qt"),
        "gallon": (16, "gallons gal"),
    },
    "money": {"cent": (Fraction(1, 100), "cents"), "dollar": (1, "dollars usd USD buck bucks")},
    "euro": {"euro": (1, "euros eur EUR")},
    "sterling": {"sterling": (1, "gbp GBP")},
    "yen": {"yen": (1, "yuan")},
    "angle": {"degree": (1, "degrees deg"), },
    "radian": {"radian": (1, "radians rad")},
    "temperature": {"celsius": (1, ""), "fahrenheit": (2, "")},
    "speed": {"mile/hour": (1, "mph"), "kilometer/hour": (2, "kph kmh kmph")},
    "percent": {"percent": (1, "percents percentage")},
}  # fmt: skip
_ONE_LETTER = frozenset("mgslLh")
_KNOWN: dict[str, tuple[str, str, Fraction]] = {}
for _dimension, _units in _TABLE.items():
    for _unit, (_factor, _others) in _units.items():
        for _name in (_unit, *_others.split()):
            _KNOWN[_name] = (_unit, _dimension, Fraction(_factor))
_CONVERTIBLE = frozenset(
    ("length", "time", "long time", "mass", "weight", "volume", "kitchen", "money")
)
_IGNORED = frozenset([
    "of", "the", "a", "an", "in", "total", "per", "each", "every", "for", "to", "away", "left",
    "more", "altogether", "is", "and", "them", "units", "unit", "both", "all", "now", "only",
])  # fmt: skip
_WORD = re.compile(r"[A-Za-z][A-Za-z'.-]*")
_TRAILING = re.compile(
    r"(?:(?:[A-Za-z][A-Za-z'.-]*|[A-Za-z]+/[A-Za-z]+)(?:\^\{?-?[123]\}?)?|/(?= ?[A-Za-z]{2})"
    r"|,(?= [A-Za-z]{2})|\([A-Za-z ]{2,40}\))$"
)
_NOT_UNITS = frozenset([
    "sin", "cos", "tan", "log", "ln", "exp", "sqrt", "pi", "or", "and", "mod", "choose", "to",
    "cot", "sec", "csc", "arcsin", "arccos", "arctan", "lim", "max", "min", "gcd", "lcm",
])  # fmt: skip
MAX_UNIT_WORDS = 12


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Known units in order ("mile", "hour"), their power, and the words that are not known."""

    known: tuple[str, ...] = ()
    power: int = 1
    words: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was written."""
        return not self.known and not self.words


NO_UNIT = Unit()


def split_unit(text: str) -> tuple[str, str]:
    """A text without the words behind its number, and those words; "" when there are none."""
    head = text
    words: list[str] = []
    while len(words) < MAX_UNIT_WORDS:
        found = _TRAILING.search(head)
        if found is None or found.start() == 0:
            break
        word, before = found.group(), head[: found.start()]
        if not _may_be_unit(word, before):
            break
        words.insert(0, word)
        head = before.rstrip()
    ends_as_value = head[-1:] in "0123456789)}!%" or head.endswith("\\pi")
    return (head, " ".join(words)) if words and ends_as_value else (text, "")


def _may_be_unit(word: str, before: str) -> bool:
    name = word.split("^")[0].rstrip(".")
    if before.endswith(("\\", "^", "_", "{", "\\frac")) or name.lower() in _NOT_UNITS:
        return False
    is_apart = before.endswith(" ")
    if "/" in word or word.startswith(("(", ",")):
        return True
    if len(name) == 1:
        return is_apart and (name in _ONE_LETTER or name in ("a", "C", "F"))
    is_after_digit = before[-1:] in "0123456789"
    if name in _KNOWN or name.lower() in _KNOWN:
        return is_apart or is_after_digit or before.endswith(("}", ")"))
    if re.fullmatch(r"st|nd|rd|th", name):
        return is_after_digit
    has_vowel = re.search(r"[aeiouyAEIOUY]", name) is not None
    return is_apart and len(name) >= 2 and has_vowel and (len(name) > 2 or name.lower() in _IGNORED)


@lru_cache(maxsize=4096)
def unit_of(text: str) -> Unit:
    """What the words behind a number say."""
    power = 1
    if match := re.search(r"\^\{?(-?[123])\}?", text):
        power = int(match[1])
    lowered = text.lower()
    if re.search(r"\b(?:square|sq)\b", lowered):
        power = 2
    elif re.search(r"\bcubic\b", lowered):
        power = 3
    known: list[str] = []
    words: list[str] = []
    for found in _WORD.finditer(re.sub(r"\^\{?-?\d\}?", " ", text)):
        word = found.group().rstrip(".")
        name = word if word in _KNOWN else word.lower()
        if name in _KNOWN and (len(name) > 1 or name in _ONE_LETTER):
            known.append(_KNOWN[name][0])
        elif name not in _IGNORED and name not in ("square", "sq", "cubic"):
            words.append(_singular(name))
    flat = tuple(part for unit in known for part in unit.split("/"))
    return Unit(known=flat, power=power if flat else 1, words=tuple(words))


def ratio_of_units(one: Unit, other: Unit) -> Fraction | None:
    """How many of `other` make one of `one`; 1 when a unit is omitted, None when they differ."""
    if one.is_empty or other.is_empty:
        return Fraction(1)
    if one.known and other.known:
        if one.power != other.power and 1 not in (one.power, other.power):
            return None
        shared = min(len(one.known), len(other.known))
        if one.known[:shared] == other.known[:shared]:
            return Fraction(1)
        return _conversion(one, other)
    if one.known or other.known:
        return Fraction(1)
    is_alike = set(one.words) <= set(other.words) or set(other.words) <= set(one.words)
    return Fraction(1) if is_alike or one.words[-1] == other.words[-1] else None


def _conversion(one: Unit, other: Unit) -> Fraction | None:
    if len(one.known) != 1 or len(other.known) != 1:
        return None
    _, dimension, factor = _KNOWN[one.known[0]]
    _, other_dimension, other_factor = _KNOWN[other.known[0]]
    if dimension != other_dimension or dimension not in _CONVERTIBLE:
        return None
    return (factor / other_factor) ** one.power


def _singular(word: str) -> str:
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if (word.endswith("es") and word[-4:-2] in ("sh", "ch")) or word.endswith(("sses", "xes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word
