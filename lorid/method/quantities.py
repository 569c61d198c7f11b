r"""Numbers as people write them: "$1,200 per day", "twenty-five", `12.5\%`, "3:30 p.m.", "3 to 4".

    read_quantity("1.5 million dollars")   # Quantity(value=1500000, unit=dollar)

Texts are in `normal_form`; None is returned for what is no number.
"""

import re
from dataclasses import replace
from fractions import Fraction

from lorid.method.answer_kinds import Clock, Quantity, Ratio
from lorid.method.normal_form import DOLLAR
from lorid.method.rationals import rational
from lorid.method.units import Unit, split_unit, unit_of

_CURRENCIES = {DOLLAR: "dollar", "\u20ac": "euro", "\u00a3": "sterling", "\u00a5": "yen"}
_INTEGERS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen",
    "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
NUMBER_WORDS = {word: number for number, word in enumerate(_INTEGERS)} | {
    word: 10 * number for number, word in enumerate(_TENS, start=2)
}
SCALES = {
    "dozen": 12,
    "hundred": 100,
    "thousand": 1000,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
_SCALED = re.compile(
    r"(.*[\d}])\s*(dozen|hundred|thousand|million|billion|trillion)\b\s*(.*)", re.DOTALL
)
_LEAD = re.compile(
    r"^(?:(?:exactly|only|about|approximately|approx\.?|roughly|around|nearly|a total of|total of"
    r"|total:|equals|is|are|the answer is|answer:|=|\\approx|therefore|\\therefore|thus|so|hence)"
    r"(?![a-zA-Z])\s*,?\s*)+",
    re.IGNORECASE,
)
_APPROXIMATE = re.compile(r"about|approx|roughly|around|nearly", re.IGNORECASE)
_CLOCK = re.compile(
    r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(?:([ap])\.?\s*m\b\.?)?|(\d{1,2})\s*([ap])\.?\s*m\b\.?",
    re.IGNORECASE,
)
_RATIO = re.compile(r"[\d.,/\s]+(?::[\d.,/\s]+)+|[\d.,]+ to [\d.,]+(?: to [\d.,]+)*")
_DECIMAL = re.compile(r"[-+]?(\d*)\.(\d+)|[-+]?(\d{1,3}(?:,\d{3})+)\.(\d+)")


def read_quantity(text: str) -> Quantity | None:
    """A number with what stands before it ("about") and behind it (a scale, a unit)."""
    lead = _LEAD.match(text)
    is_rounded = bool(lead and ("\\approx" in lead[0] or _APPROXIMATE.search(lead[0])))
    body = text[lead.end() :] if lead else text
    if body.endswith("\\ldots"):
        body, is_rounded = body.removesuffix("\\ldots").strip(), True
    scaled = _SCALED.fullmatch(body)
    quantity = _plain_number(scaled[1] if scaled else body) or _spelled(body)
    if scaled and quantity is not None:
        unit = unit_of(scaled[3]) if scaled[3] else quantity.unit
        quantity = Quantity(value=quantity.value * SCALES[scaled[2]], unit=unit)
    if quantity is None or not is_rounded:
        return quantity
    return replace(quantity, is_rounded=True)


def _plain_number(text: str) -> Quantity | None:
    if not text:
        return None
    sign, body, currency = without_currency(text)
    value_text, unit_text = split_unit(body)
    is_percentage = value_text.endswith("%") or unit_text.lower() in ("percent", "per cent")
    value_text = value_text.removesuffix("%").rstrip()
    value = rational(value_text)
    if value is None:
        return None
    unit = unit_of("" if is_percentage else unit_text)
    if currency:
        rest = unit.known[1:] if unit.known[:1] == (currency,) else unit.known
        unit = Unit(known=(currency, *rest), words=unit.words)
    decimal = _DECIMAL.fullmatch(value_text)
    whole, places = (
        (decimal[1] or decimal[3] or "", decimal[2] or decimal[4]) if decimal else ("", "")
    )
    return Quantity(
        value=sign * value,
        unit=unit,
        is_percentage=is_percentage,
        places=len(places) if decimal else None,
        num_digits=len((whole.replace(",", "") + places).lstrip("0")),
    )


def without_currency(text: str) -> tuple[int, str, str]:
    """Sign, the text without a sign in words and a currency sign, and the currency's unit."""
    sign, body = 1, text
    if match := re.match(r"(?:negative|minus)\s+(?=[\d\\.])", body, re.IGNORECASE):
        sign, body = -1, body[match.end() :]
    match = re.match(rf"([-+]?)\s*(?:US)?([{''.join(_CURRENCIES)}])\s*(-?)\s*", body)
    if match:
        is_negative = "-" in (match[1], match[3])
        return (-sign if is_negative else sign), body[match.end() :], _CURRENCIES[match[2]]
    if body[-1:] in _CURRENCIES:
        return sign, body[:-1].rstrip(), _CURRENCIES[body[-1]]
    return sign, body, ""


def _spelled(text: str) -> Quantity | None:
    """A number in words: "twenty-five apples"."""
    if not text[:1].isalpha():
        return None
    words = text.lower().replace("-", " ").split()
    total, current, used = 0, 0, 0
    for word in words:
        if word in NUMBER_WORDS:
            current += NUMBER_WORDS[word]
        elif word in SCALES and used:
            scale = SCALES[word]
            current = current * scale if scale == 100 else current
            total, current = (total, current) if scale == 100 else (total + current * scale, 0)
        elif word != "and" or not used:
            break
        used += 1
    if not used:
        return None
    rest = " ".join(words[used:])
    if rest and (split_unit(f"1 {rest}")[1] != rest):
        return None
    return Quantity(value=Fraction(total + current), unit=unit_of(rest))


def read_clock(text: str) -> Clock | None:
    """`3:30`, `3:30 p.m.`, `3 pm`."""
    found = _CLOCK.fullmatch(text)
    if found is None:
        return None
    hours, minutes = int(found[1] or found[5]), int(found[2] or 0)
    half = (found[4] or found[6] or "").lower()
    if hours > 24 or minutes > 59 or (not half and len(found[2]) != 2):
        return None
    return Clock(hours=hours, minutes=minutes, seconds=int(found[3] or 0), half=half)


def read_ratio(text: str) -> Ratio | None:
    """`3:4`, `3 to 4`, `1:2:3`, in lowest terms."""
    if not _RATIO.fullmatch(text):
        return None
    terms = [rational(term.strip()) for term in re.split(r":| to ", text)]
    if any(term is None for term in terms):
        return None
    values = [term for term in terms if term is not None]
    first = next((value for value in values if value), None)
    return None if first is None else Ratio(terms=tuple(value / first for value in values))
