r"""What a text mentions: its numbers in any spelling, its names, its words.

    [one.value for one in numbers_in("Tom has twenty-five coins and $1,200, or \frac{3}{4}.")]
    # [25, 1200, 3/4, 3, 4]
    names_in("Weng earns $12. Then Weng pays Betty.")   # {"weng", "betty"}

Everything is one pass over the text, so that a megabyte of it is no attack. What a mention means
for knowledge is decided by `lorid.method.gate`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from lorid.method.quantities import NUMBER_WORDS, SCALES, read_quantity
from lorid.method.rationals import rational
from lorid.method.vocabulary import BEGINNINGS, NO_NAMES

MAX_NUMBER_CHARS = 60
_WORD = r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*"
_DIGITS = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?"
_SPELLED = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
_SCALE = "|".join(scale for scale in SCALES if scale != "dozen")
_NUMBER = re.compile(
    rf"\\[dtc]?frac\s*\{{\s*(?P<top>{_DIGITS})\s*\}}\s*\{{\s*(?P<bottom>{_DIGITS})\s*\}}"
    rf"|(?P<over>{_DIGITS})\s?/\s?(?P<under>{_DIGITS})"
    rf"|(?P<digits>{_DIGITS}|\.\d+)"
    rf"|\b(?P<spelled>(?:{_SPELLED})(?:(?:-|\s|\sand\s)(?:{_SPELLED}|{_SCALE}))*)\b",
    re.IGNORECASE,
)
_TOKEN = re.compile(rf"\\?(?P<word>{_WORD})|\d+")
_NEXT = re.compile(rf"\s?(?P<mark>%|\\%|percent\b)|[\s-](?P<word>{_WORD})")
# A sentence may also begin behind a quotation mark, a bracket or the dollar of a formula.
_BEGINS = re.compile(r"(?:^|[.!?:;\n][\s\"'\u201c\u2018(\[$*]*|[\"\u201c]\s*)\Z")
_SENTENCE_TAIL = 12
_NO_NAMES = NO_NAMES | BEGINNINGS


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number as mentioned: its value, and the thing that it counts ("" when it counts none).

    `counted` is the word or sign beside it: "box" of "3 boxes", "$", "%". `is_symbolic` tells
    coefficients and exponents of formulas: the 2 of `2x` and of `x^2`.
    """

    value: Fraction
    text: str
    counted: str = ""
    is_symbolic: bool = False


@dataclass(frozen=True, kw_only=True)
class Capitalised:
    """A word with a capital letter; `begins`: it begins a sentence, and may mean nothing by it."""

    word: str
    begins: bool


@lru_cache(maxsize=256)
def words_in(text: str) -> tuple[str, ...]:
    """Words and numbers, case folded, without punctuation."""
    return tuple(found[0].lstrip("\\").casefold() for found in _TOKEN.finditer(text))


@lru_cache(maxsize=8192)
def stem(word: str) -> str:
    """The word without the ending of a plural: enough to tell that "boxes" are made of "box"."""
    for ending, rest in (
        ("ies", "y"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("xes", "x"),
        ("sses", "ss"),
    ):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            return word.removesuffix(ending) + rest
    is_plural = word.endswith("s") and not word.endswith("ss") and len(word) > 3
    return word[:-1] if is_plural else word


# A question is looked at with each knowledge that is written for it, and rules come back in many.
@lru_cache(maxsize=256)
def numbers_in(text: str) -> tuple[Number, ...]:
    """Every number: digits with separators and decimals, fractions and their parts, words.

    A percentage is mentioned twice, as what is written and as the fraction that it stands for.
    """
    return tuple(_numbers_in(text))


def _numbers_in(text: str) -> Iterator[Number]:
    for found in _NUMBER.finditer(text):
        if len(found[0]) > MAX_NUMBER_CHARS:
            continue
        counted = _counted(text, found)
        is_symbolic = _is_symbolic(text, found)
        for value in _values(found):
            yield Number(
                value=value, text=found[0].strip(), counted=counted, is_symbolic=is_symbolic
            )
            if counted == "%":
                yield Number(value=value / 100, text=found[0] + "%")


def _values(found: re.Match[str]) -> list[Fraction]:
    if found["spelled"]:
        quantity = read_quantity(" ".join(found["spelled"].split()))
        return [getattr(quantity, "value", None) or Fraction(0)]
    parts = [found["top"] or found["over"], found["bottom"] or found["under"]]
    if parts[0] is None:
        value = rational(found["digits"])
        return [] if value is None else [value]
    top, bottom = (rational(str(part)) for part in parts)
    if top is None or bottom is None:
        return []
    return [top / bottom, top, bottom] if bottom else [top, bottom]


def _counted(text: str, found: re.Match[str]) -> str:
    following = _NEXT.match(text, found.end())
    if following is not None and following["mark"]:
        return "%"
    if text[max(0, found.start() - 1) : found.start()] in ("$", "\u20ac", "\u00a3"):
        # A dollar also opens a formula: then a letter or a sign follows, no space or full stop.
        return "$"
    return stem(following["word"].casefold()) if following is not None else ""


def _is_symbolic(text: str, found: re.Match[str]) -> bool:
    before = text[max(0, found.start() - 2) : found.start()]
    after = text[found.end() : found.end() + 2]
    is_exponent = before.endswith(("^", "^{", "_", "_{"))
    is_coefficient = after[:1].isalpha() and not after[1:2].isalpha() and not found["spelled"]
    return is_exponent or is_coefficient or after[:1] in ("\\", "^")


@lru_cache(maxsize=256)
def capitalised_in(text: str) -> tuple[Capitalised, ...]:
    """Words of two letters and more that begin with a capital, possessives without their ending."""
    return tuple(_capitalised_in(text))


def _capitalised_in(text: str) -> Iterator[Capitalised]:
    for found in _TOKEN.finditer(text):
        word = found["word"]
        if not word or found[0].startswith("\\") or not word[0].isupper():
            continue
        word = re.sub(r"['\u2019]s?$", "", word)
        if len(word) > 1:
            before = text[max(0, found.start() - _SENTENCE_TAIL) : found.start()]
            begins = len(before) < _SENTENCE_TAIL and not before.strip("\"'\u201c\u2018([$* ")
            yield Capitalised(word=word, begins=begins or bool(_BEGINS.search(before)))


@lru_cache(maxsize=64)
def names_in(question: str) -> frozenset[str]:
    """Words that the question uses as names, case folded.

    That is every capitalised word inside a sentence, and of those that begin one the words that
    are not written small elsewhere in the question; never the usual beginnings of sentences.
    """
    small = {found[0] for found in _TOKEN.finditer(question) if found[0].islower()}
    found = ((one.word.casefold(), one.begins) for one in capitalised_in(question))
    return frozenset(
        word for word, begins in found if word not in _NO_NAMES and not (begins and word in small)
    )
