r"""The signs of one line of reasoning: numbers, operators, brackets, equal signs, words.

    [sign.text for sign in signs_of("She pays 3 x $5 = $15.")]
    # ["she", "pays", "3", "*", "5", "=", "15", "."]

Unicode and LaTeX come out in one spelling, with their places in the line. What no arithmetic is
made of comes out as UNKNOWN, so that a reader can tell "nothing here" from "not understood here".
Nothing is evaluated; the work is linear in the line.
"""

import re
from collections.abc import Iterator
from enum import Enum, auto
from typing import NamedTuple

from lorid.method.quantities import SCALES
from lorid.method.units import unit_of

MAX_NUMBER_CHARS = 30


class Kind(Enum):
    """What a sign is to a reader of arithmetic."""

    NUMBER = auto()
    OPERATOR = auto()
    OPEN = auto()
    CLOSE = auto()
    FRACTION = auto()
    PERCENT = auto()
    EQUALS = auto()
    WORD = auto()
    STOP = auto()
    UNKNOWN = auto()


class Sign(NamedTuple):
    """One sign in one spelling; `is_money` tells "$5", `is_spoken` "plus", `is_letter` "3 x 5"."""

    kind: Kind
    text: str
    start: int
    end: int
    is_money: bool = False
    is_spoken: bool = False
    is_letter: bool = False


_SIGN = re.compile(
    r"(?P<money>(?:US)?\\?[$\u20ac\u00a3\u00a5]\s?)?"
    r"(?P<number>\d{1,4} (?:and )?\(?\d{1,4}/\d{1,4}(?![\d/.,])\)?"
    r"|(?:\d{1,3}(?:(?:,|\{,\})\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:\.\.+|\u2026)?"
    r"|(?P<arrow>-{1,2}>|=>|\u2192|\u21d2|\u2234|\\(?:Rightarrow|implies|to|therefore)(?![a-z]))"
    r"|(?P<bad>[!<>:~]=|=[<>/]|<|>|\\[a-z]+)"
    r"|(?P<equals>==?|\u2248|(?:is|are|was|which is)\s+equal\s+to\b|equals\b|equal to\b)"
    r"|(?P<word>[^\W\d_]+(?:['\u2019-][^\W\d_]+)*)"
    r"|(?P<operator>\*\*|[-+*/^\u2010-\u2015\u2212\u00d7\u22c5\u00b7\u2217\u2219\u2022\u00f7\u2215"
    r"\u2044])"
    r"|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<percent>%)"
    r"|(?P<stop>[.,;:](?!\d)|(?<=[a-zA-Z]):|[?!](?=\s|$)|[\"\u201c\u201d|])"
    r"|(?P<raised>[\u00b2\u00b3])"
    r"|(?P<part>[\u00bc-\u00be])"
    r"|(?P<other>(?<=\d)'|[^\s$\u20ac\u00a3\u00a5'\u2018\u2019])",
    re.IGNORECASE,
)
# LaTeX that is blanked or has a plain spelling, each kept at its length.
_LATEX = re.compile(
    r"\\(?:text(?:bf|it|rm)?|mathrm|mathbf|mbox|boxed|fbox)\s*\{(?P<inside>[^{}]*)\}"
    r"|(?P<gone>\\(?:left|right|displaystyle)(?![a-zA-Z])|\\[()\[\],;:! ]|\\q?quad(?![a-zA-Z])|~)"
    r"|(?P<times>\\(?:times|cdot|ast)(?![a-zA-Z]))|(?P<over>\\div(?![a-zA-Z]))"
    r"|(?P<about>\\(?:approx|simeq)(?![a-zA-Z]))|(?P<percent>\\%)"
    r"|(?P<frac>\\[dtc]?frac(?=\s*\{))"
)
_FRACTION_MARK = "\u0001"
_OPERATORS = {
    **dict.fromkeys("*\u00d7\u22c5\u00b7\u2217\u2219\u2022", "*"),
    **dict.fromkeys("/\u00f7\u2215\u2044", "/"),
    **dict.fromkeys("-\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
    "+": "+", "^": "^", "**": "^",
}  # fmt: skip
_PARTS = {"\u00bc": "(1/4)", "\u00bd": "(1/2)", "\u00be": "(3/4)"}
_SPOKEN = {"plus": "+", "minus": "-", "times": "*", "x": "*"}
_SPOKEN_BY = {"divided": "/", "multiplied": "*"}
_BY = re.compile(r"\s+by\b", re.IGNORECASE)
_ORDINALS = frozenset(("st", "nd", "rd", "th"))
_CLOCK = frozenset(("am", "pm", "a.m", "p.m"))
_SPLIT = re.compile(r"\d, \d{3}$")
_LONE_WORDS = frozenset(("a", "i"))


def blanked(line: str) -> str:
    """The line with plain spellings for LaTeX, character for character in its place."""
    return _LATEX.sub(_plain, line) if "\\" in line or "~" in line else line


def _plain(found: re.Match[str]) -> str:
    size = len(found[0])
    if (inside := found["inside"]) is not None:
        return inside.rjust(size - 1) + " "
    sign = {"times": "*", "over": "/", "about": "\u2248", "percent": "%", "frac": _FRACTION_MARK}
    return sign.get(str(found.lastgroup), " ").ljust(size)


def signs_of(line: str) -> list[Sign]:
    """The signs of a line, in order."""
    return list(_signs(blanked(line)))


def _signs(line: str) -> Iterator[Sign]:
    position = 0
    while (found := _SIGN.search(line, position)) is not None:
        position = found.end()
        kind = str(found.lastgroup)
        if kind == "number":
            yield _number(line, found)
        elif kind == "word":
            sign = _word(line, found)
            position = sign.end
            yield sign
        elif kind == "raised":
            exponent = "2" if found[0] == "\u00b2" else "3"
            yield Sign(Kind.OPERATOR, "^", found.start(), found.start())
            yield Sign(Kind.NUMBER, exponent, found.start(), found.end())
        elif not _is_bold(line, found):
            yield _other(kind, found)


def _is_bold(line: str, found: re.Match[str]) -> bool:
    """Whether `**` is Markdown's, and not the power of `2**3`."""
    if found[0] != "**":
        return False
    before, after = line[found.start() - 1 : found.start()], line[found.end() : found.end() + 1]
    return not ((before.isdigit() or before == ")") and (after.isdigit() or after == "("))


def _other(kind: str, found: re.Match[str]) -> Sign:
    text, start, end = found[0], found.start(), found.end()
    if text == _FRACTION_MARK:
        return Sign(Kind.FRACTION, "\\frac", start, end)
    if kind == "operator":
        return Sign(Kind.OPERATOR, _OPERATORS[text], start, end)
    if kind == "part":
        return Sign(Kind.NUMBER, _PARTS[text], start, end)
    if kind == "open":
        return Sign(Kind.OPEN, "{" if text == "{" else "(", start, end)
    if kind == "close":
        return Sign(Kind.CLOSE, "}" if text == "}" else ")", start, end)
    kinds = {
        "equals": Kind.EQUALS, "percent": Kind.PERCENT, "stop": Kind.STOP, "arrow": Kind.STOP,
    }  # fmt: skip
    return Sign(kinds.get(kind, Kind.UNKNOWN), text.lower(), start, end)


def _number(line: str, found: re.Match[str]) -> Sign:
    text, end = found["number"], found.end()
    following = line[end : end + 2]
    # "3:30", "1.2.3", "1,50" and "#5" are no plain numbers.
    is_odd = following[:1] in (":", ".", ",") and following[1:].isdigit()
    # "0130" is a time of day, the rest of "14, 400" was one number.
    is_odd = is_odd or re.match(r"0\d", text) is not None
    is_odd = is_odd or _SPLIT.search(line, max(0, found.start() - 6), end) is not None
    before = line[found.start() - 1 : found.start()]
    is_odd = is_odd or before in ("#", "_", ".", ",") or (before.isalpha() and before not in "xX")
    is_odd = is_odd or len(text) > MAX_NUMBER_CHARS or following[:1] == "!"
    kind = Kind.UNKNOWN if is_odd else Kind.NUMBER
    text = re.sub(r"[{},()]|and ", "", text)
    return Sign(kind, text, found.start(), end, is_money=found["money"] is not None)


def _word(line: str, found: re.Match[str]) -> Sign:
    text, start, end = found[0].lower(), found.start(), found.end()
    is_attached = line[start - 1 : start].isdigit()
    spoken = _SPOKEN.get(text)
    by = _BY.match(line, end) if text in _SPOKEN_BY else None
    if by is not None:
        return Sign(Kind.OPERATOR, _SPOKEN_BY[text], start, by.end(), is_spoken=True)
    if spoken is not None:
        is_x = text == "x"
        return Sign(Kind.OPERATOR, spoken, start, end, is_spoken=not is_x, is_letter=is_x)
    if text == "percent":
        return Sign(Kind.PERCENT, "%", start, end)
    is_variable = len(text) == 1 and (is_attached or text not in _LONE_WORDS)
    # "5kg" has a unit; "10am" and "2ab" have none.
    is_named = text in _ORDINALS or text in SCALES or unit_of(text).known
    is_other = is_attached and not is_named
    if text in _CLOCK or is_variable or is_other:
        return Sign(Kind.UNKNOWN, text, start, end)
    return Sign(Kind.WORD, text, start, end)
