r"""The sides of equal signs in a line: which stretches of it are arithmetic, and where they end.

    for side in sides_of(signs_of("Tom has 3 + 4 = 7 apples, and 7 * 2 = 14 legs.")): ...
    # 3 + 4 | 7 apples | 7 * 2 | 14 legs

A side is a run of numbers joined by operators, with the words of their units. Each of its ends is
clear or not: "twice 5 + 3" does not begin clearly, "15 more than" does not end so. Where a line is
not understood, nothing of it is a side with clear ends: only those are ever judged.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from lorid.method.prose import (
    BINDS,
    CHANGES,
    LEADS,
    NO_UNITS,
    PARTS,
    POWERS,
    PROPORTIONS,
    SHARES,
    WHOLES,
)
from lorid.method.signs import Kind, Sign
from lorid.method.units import unit_of

MAX_SIGNS = 120
MAX_UNIT_WORDS = 6
MAX_DEPTH = 12
MAX_NEAR = 3


@dataclass(kw_only=True)
class Side:
    """A run of signs. `index` counts the equal signs before it.

    `units` holds the words behind the sign at a place of `signs`; `begins`, `ends` tell whether
    the ends are clear; `follows`, `precedes` whether an equal sign stands there; `is_alone` whether
    neither word nor number stands before it.
    """

    index: int
    signs: list[Sign] = field(default_factory=list[Sign])
    units: dict[int, tuple[str, ...]] = field(default_factory=dict[int, tuple[str, ...]])
    begins: bool = True
    ends: bool = True
    follows: bool = False
    precedes: bool = False
    is_alone: bool = False

    @property
    def has_operator(self) -> bool:
        """Whether it is more than one number; a sign before a number is part of it."""
        return any(
            sign.kind in (Kind.OPERATOR, Kind.FRACTION) and place > 0
            for place, sign in enumerate(self.signs)
        )

    @property
    def has_units(self) -> bool:
        """Whether words stand behind a number."""
        return bool(self.units)

    @property
    def is_money(self) -> bool:
        """Whether a number has the sign of a currency."""
        return any(sign.is_money for sign in self.signs)


def sides_of(signs: Iterable[Sign]) -> list[Side]:
    """The runs of arithmetic of a line, in order."""
    reader = _Reader()
    listed = list(signs)
    for place, sign in enumerate(listed):
        reader.read(sign, listed[place + 1] if place + 1 < len(listed) else None)
    reader.close(ends=True)
    return reader.sides


_STARTS = (Kind.NUMBER, Kind.OPEN, Kind.FRACTION)


class _Reader:
    """One pass over the signs; `run` is the side that is being read."""

    def __init__(self) -> None:
        self.sides: list[Side] = []
        self.num_equals = 0
        self.words: list[str] = []
        self.last: Sign | None = None
        self.is_lost = False
        self.swallows_next = False
        self._start_over()

    def _start_over(self) -> None:
        self.run = Side(index=self.num_equals)
        self.wants_operand = True
        self.opened: list[int] = []
        self.unit: list[str] = []

    def read(self, sign: Sign, following: Sign | None) -> None:
        """Take one sign; `following` is the next one."""
        if self.swallows_next:
            self.swallows_next = False
        elif sign.kind is Kind.WORD:
            self._word(sign, following)
        elif sign.kind is Kind.OPERATOR:
            self._operator(sign, following)
        elif sign.kind in _STARTS:
            self._operand(sign)
        elif sign.kind is Kind.PERCENT:
            self._percent(sign)
        elif sign.kind is Kind.CLOSE:
            self._closing(sign)
        elif sign.kind is Kind.EQUALS:
            self._equals()
        elif sign.kind is Kind.STOP:
            self._stop()
        else:
            self._lose()
        self.last = sign

    # Ends ---------------------------------------------------------------------------------------

    def close(self, *, ends: bool, precedes: bool = False) -> None:
        """End the run; it is kept when it is whole."""
        run = self.run
        self._attach()
        if self.opened and precedes:
            run.begins = run.begins and self.opened[-1] == len(self.opened) - 1
            self._forget_before(self.opened[-1] + 1)
        is_whole = bool(run.signs) and not self.wants_operand and not (self.opened and precedes)
        if is_whole and len(run.signs) <= MAX_SIGNS:
            run.ends, run.precedes = ends and not self.opened, precedes
            self.sides.append(run)
        self._start_over()

    def _forget_before(self, place: int) -> None:
        """Only what stands in the bracket that is still open: "(5 + 3 = 8)"."""
        run = self.run
        run.units = {at - place: words for at, words in run.units.items() if at >= place}
        run.signs = run.signs[place:]
        run.follows, run.is_alone = False, True
        self.opened = []

    def _lose(self) -> None:
        """Something that is not understood: neither the run nor what follows has clear ends."""
        self.close(ends=False)
        self.is_lost = True
        self.words = []

    def _equals(self) -> None:
        self.close(ends=True, precedes=True)
        self.num_equals += 1
        self.is_lost = False
        self.words = []
        self._start_over()

    def _stop(self) -> None:
        if self.last is not None and self.last.kind is Kind.OPERATOR:
            self._lose()
            return
        self.close(ends=True)
        self.is_lost = False
        self.words = []

    # Signs --------------------------------------------------------------------------------------

    def _operand(self, sign: Sign) -> None:
        if not self.run.signs:
            self._begin(sign)
        elif not self.wants_operand:
            # "2(3)" multiplies, "20% (3)" and "4 (15 minutes)" do not.
            is_product = self.last is not None and self.last.end == sign.start
            is_product = is_product and self.run.signs[-1].kind is not Kind.PERCENT
            if self.unit or sign.kind is Kind.NUMBER or not is_product:
                self._next_run(sign)
                return
        self._append(sign)
        if sign.kind is Kind.OPEN:
            self.opened.append(len(self.run.signs) - 1)
            if len(self.opened) > MAX_DEPTH:
                self._lose()
        self.wants_operand = sign.kind is not Kind.NUMBER

    def _next_run(self, sign: Sign) -> None:
        """A second number without an operator between: where one ends, and the next begins."""
        words, is_result = self.unit, self.run.follows
        is_mixed = sign.kind is Kind.NUMBER and (
            not words or (unit_of(words[0]).known and words[1:] in ([], ["and"]))
        )
        is_proportion = words in PROPORTIONS or words[-1:] == ["than"]
        self.close(ends=not is_mixed and not is_proportion)
        self.words = words
        binds = not words or is_mixed or words[-1] in BINDS or words == ["or"]
        if len(words) > 1 and words[-1] == "of":
            binds = words[-2] not in WHOLES
        if is_result and words[-1:] == ["and"]:
            binds = is_mixed
        was_lost, self.is_lost = self.is_lost, self.is_lost or binds
        self._operand(sign)
        self.is_lost = was_lost

    def _begin(self, sign: Sign) -> None:
        run = self.run
        is_called = sign.kind is Kind.OPEN and self._touches(sign) and self.last is not None
        changes = self.words[-1:] != [] and self.words[-1] in CHANGES
        changes = changes or any(word in SHARES for word in self.words[-2:])
        run.begins = not self.is_lost and not changes and not is_called
        is_at_once = self.last is None or self.last.kind is Kind.EQUALS
        led = self.num_equals > 0 and bool(self.words) and set(self.words) <= LEADS
        run.follows = is_at_once or (led and self._is_first())
        run.follows = run.follows and self.last is not None
        run.is_alone = not self.words and self._is_first()

    def _touches(self, sign: Sign) -> bool:
        is_word = self.last is not None and self.last.kind in (Kind.WORD, Kind.UNKNOWN)
        return is_word and self.last is not None and self.last.end == sign.start

    def _is_first(self) -> bool:
        return not self.sides or self.sides[-1].index < self.num_equals

    def _append(self, sign: Sign) -> None:
        self._attach()
        self.run.signs.append(sign)

    def _attach(self) -> None:
        """Words behind the last operand are its unit."""
        if self.unit and self.run.signs:
            self.run.units[len(self.run.signs) - 1] = tuple(self.unit)
        self.unit = []

    def _operator(self, sign: Sign, following: Sign | None) -> None:
        if sign.is_spoken and (following is None or following.kind not in _STARTS):
            self._word(sign, following)
            return
        is_between = self.last is not None and self.last.kind is Kind.WORD
        if is_between and not self.run.signs and following and following.kind is Kind.WORD:
            return  # "either/or"
        is_sign = sign.text in ("+", "-") and not sign.is_spoken
        has_operand = following is not None and (
            following.kind in _STARTS
            # "3x-5" has an unknown.
            or (following.kind is Kind.OPERATOR and following.text == "-" and not sign.is_letter)
        )
        if not self.run.signs and self.wants_operand:
            may_begin = self.last is None or self.last.kind in (
                Kind.EQUALS, Kind.STOP, Kind.OPEN,
            )  # fmt: skip
            if is_sign and has_operand and may_begin and not self.is_lost:
                self._begin(sign)
                self._append(sign)
            else:
                self._lose()
        elif self.wants_operand:
            if is_sign and has_operand:
                self._append(sign)
            else:
                self._lose()
        elif sign.text == "^" and self.unit:
            self.swallows_next = True  # "24 cm^2"
        elif has_operand:
            if any(word in NO_UNITS for word in self.unit):
                self._lose()
                return
            self._append(sign)
            self.wants_operand = True
        elif following is not None and following.kind is Kind.WORD and self._is_unit(sign):
            self.unit.append("per" if sign.text == "/" else following.text)
            self.unit += [following.text] if sign.text == "/" else []
            self.swallows_next = True
        else:
            self._lose()

    def _is_unit(self, sign: Sign) -> bool:
        """`$5/hour`; the hyphen of "12-inch" touches its number."""
        touches = self.last is not None and self.last.end == sign.start
        return sign.text == "/" or (sign.text == "-" and touches and not self.unit)

    def _percent(self, sign: Sign) -> None:
        if self.run.signs and not self.wants_operand and not self.unit:
            self._append(sign)
        else:
            self._lose()

    def _closing(self, sign: Sign) -> None:
        if self.opened and not self.wants_operand:
            self.opened.pop()
            self._append(sign)
        elif self.opened:
            self._lose()
        else:
            self.close(ends=True)
            self.words = []

    def _word(self, sign: Sign, following: Sign | None) -> None:
        run = self.run
        if not run.signs:
            self.words = [*self.words[-MAX_NEAR:], sign.text]
        elif self.wants_operand:
            self._remark(sign)
        elif sign.text == "of" and self._is_share(following):
            self._append(Sign(Kind.OPERATOR, "*", sign.start, sign.end, is_spoken=True))
            self.wants_operand = True
        elif (
            sign.text in POWERS
            or sign.text == "remainder"
            or (sign.text in PARTS and len(self.unit) <= MAX_NEAR)
        ):
            self._lose()
            self.words = [sign.text]
        elif len(self.unit) == MAX_UNIT_WORDS and not self.opened:
            self.words = [*self.unit[-MAX_NEAR:], sign.text]
            self.close(ends=True)
        else:
            self.unit.append(sign.text)

    def _remark(self, sign: Sign) -> None:
        """A word where a number is due: only behind a bracket, as in "15 (the boys) ..."."""
        signs = self.run.signs
        while signs and signs[-1].kind is Kind.OPEN:
            signs.pop()
            if self.opened:
                self.opened.pop()
        if signs and signs[-1].kind in (Kind.OPERATOR, Kind.FRACTION):
            self._lose()
            return
        self.wants_operand = not signs
        self.close(ends=True)
        self.words = [sign.text]

    def _is_share(self, following: Sign | None) -> bool:
        """`20% of 50`, `3/4 of 20`."""
        signs = self.run.signs
        if following is None or following.kind not in _STARTS or self.unit:
            return False
        is_fraction = any(sign.text in ("/", "\\frac") for sign in signs[-8:])
        return (
            signs[-1].kind is Kind.PERCENT or is_fraction or signs[-1].text.startswith(("0.", "."))
        )
