r"""Exact rational arithmetic for answers: `\frac{1}{2} + 3\cdot 10^{-2}` is 53/100.

    rational(r"2\frac{1}{2}")   # Fraction(5, 2)

A recursive descent over numbers, `+ - * / ^`, brackets and `\frac`; None for anything else, so no
text is ever evaluated. Depth, length and the size of every intermediate number are bounded.
"""

import re
from fractions import Fraction

MAX_CHARS = 300
MAX_DEPTH = 25
MAX_BITS = 4096
MAX_EXPONENT = 4096

_TOKEN = re.compile(
    r"\s*(?:(?P<mixed>\d+\s*\\frac\{\d+\}\{\d+\}|\d+ \d+\s*/\s*\d+(?!\s*[/^]))"
    r"|(?P<repeating>\d*\.\d*\\(?:overline|bar)\{?\d+\}?)"
    r"|(?P<number>\d{1,3}(?:,\d{3})+(?:\.\d+)?(?!\d)|\d{1,3}(?: \d{3})+(?:\.\d+)?(?![ \d])"
    r"|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,4}(?![\d.]))?)"
    r"|(?P<frac>\\frac)|(?P<dot>\\cdot)|(?P<sign>[-+/^(){}]))\s*"
)
_SMALL = re.compile(r"([-+]?)(\d{1,18})(?:\.(\d{1,18}))?")


class _Unreadable(Exception):
    """The text is no rational number, or too large a one."""


def rational(text: str) -> Fraction | None:
    """The exact value of a numeric text; None when it is not one, or is out of bounds."""
    if small := _SMALL.fullmatch(text):
        return _decimal(small[1], small[2], small[3] or "")
    if len(text) > MAX_CHARS or not any(map(str.isdigit, text)):
        return None
    try:
        return _Parser(text).value()
    except (_Unreadable, ZeroDivisionError, OverflowError, RecursionError):
        return None


def _decimal(sign: str, whole: str, places: str) -> Fraction:
    value = Fraction(int(whole + places), 10 ** len(places))
    return -value if sign == "-" else value


class _Parser:
    """One pass over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None or found.end() == position:
                raise _Unreadable
            kind = str(found.lastgroup)
            self.tokens.append((kind, found[kind]))
            position = found.end()
        self.tokens.append(("end", ""))
        self.position = 0

    def value(self) -> Fraction:
        value = self._sum(0)
        if self._peek() != "":
            raise _Unreadable
        return value

    def _peek(self) -> str:
        return self.tokens[self.position][1]

    def _kind(self) -> str:
        return self.tokens[self.position][0]

    def _take(self, expected: str | None = None) -> tuple[str, str]:
        token = self.tokens[self.position]
        if expected is not None and token[1] != expected:
            raise _Unreadable
        self.position += 1
        return token

    def _sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise _Unreadable
        value = self._product(depth)
        while self._peek() in ("+", "-"):
            sign = self._take()[1]
            term = self._product(depth)
            value = _bounded(value + term if sign == "+" else value - term)
        return value

    def _product(self, depth: int) -> Fraction:
        value = self._signed(depth)
        while True:
            if self._kind() == "dot":
                self._take()
                value = _bounded(value * self._signed(depth))
            elif self._peek() == "/":
                self._take()
                value = _bounded(value / self._signed(depth))
            elif self._peek() in ("(", "\\frac"):
                value = _bounded(value * self._power(depth))
            else:
                return value

    def _signed(self, depth: int) -> Fraction:
        if self._peek() in ("+", "-"):
            if depth > MAX_DEPTH:
                raise _Unreadable
            sign = self._take()[1]
            value = self._signed(depth + 1)
            return -value if sign == "-" else value
        return self._power(depth)

    def _power(self, depth: int) -> Fraction:
        base = self._atom(depth)
        if self._peek() != "^":
            return base
        self._take()
        exponent = self._exponent(depth)
        if self._peek() == "^":
            raise _Unreadable
        bits = max(base.numerator.bit_length(), base.denominator.bit_length())
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
            raise _Unreadable
        if bits * abs(exponent.numerator) > MAX_BITS:
            raise _Unreadable
        return base**exponent.numerator

    def _exponent(self, depth: int) -> Fraction:
        if self._peek() == "-":
            self._take()
            return -self._atom(depth)
        return self._atom(depth)

    def _atom(self, depth: int) -> Fraction:
        kind, text = self._take()
        if kind == "number":
            return _number(text)
        if kind == "mixed":
            whole, numerator, denominator = re.findall(r"\d+", text)
            return int(whole) + Fraction(int(numerator), int(denominator))
        if kind == "repeating":
            return _repeating(text)
        if kind == "frac":
            numerator = self._group("{", "}", depth)
            return _bounded(numerator / self._group("{", "}", depth))
        if text in ("(", "{"):
            self.position -= 1
            return self._group(text, ")" if text == "(" else "}", depth)
        raise _Unreadable

    def _group(self, opening: str, closing: str, depth: int) -> Fraction:
        self._take(opening)
        value = self._sum(depth + 1)
        self._take(closing)
        return value


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise _Unreadable
    return value


def _number(text: str) -> Fraction:
    digits = text.replace(",", "").replace(" ", "")
    mantissa, _, exponent = digits.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_EXPONENT // 4:
        raise _Unreadable
    whole, _, places = mantissa.partition(".")
    return _bounded(_decimal("", whole or "0", places) * Fraction(10) ** int(exponent or 0))


def _repeating(text: str) -> Fraction:
    r"""`0.1\overline{6}` is 1/10 + 6/90."""
    plain, _, period = text.replace("{", "").replace("}", "").partition("\\")
    period = period.removeprefix("overline").removeprefix("bar")
    whole, _, places = plain.partition(".")
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(places))
    return _decimal("", whole or "0", places) + tail
