r"""Whether two answers are equal: exactly, safely and symmetrically.

    with AnswerChecker() as checker:
        checker.equal("0.5", r"\frac{1}{2}")            # True
        checker.verdict(r"\sqrt{8}", r"2\sqrt{2}")      # Verdict(equal=True, reason="symbolic")

Layers, from the fastest to the slowest; the first that can decide does:

1. the same text, or plain numbers as exact fractions;
2. what both answers say (`lorid.method.reading`): quantities as exact rationals with their units,
   lists, intervals, matrices and equations part by part, words case folded;
3. formulas, by Math-Verify's grammar in worker processes with limits (`lorid.method.symbolic`).

Integers are equal only when identical, and decimals are exact. Only a decimal of at least four
significant digits, or one marked as rounded, may stand for a number that its places cannot write
(0.3333 for 1/3), within one unit of its last place. A percentage equals its fraction (50% and 1/2)
and its bare number (50% and 50), an omitted unit says nothing, different units differ.

A pair is always judged in one order, so equality is symmetric by construction; the same text is
equal to itself. Nothing is evaluated as code, and no pair takes more than a bounded time.
"""

import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import TracebackType
from typing import Self

from lorid.method.answer_kinds import (
    Answer,
    Assignment,
    Choice,
    Clock,
    Collection,
    Expression,
    Matrix,
    Quantity,
    Ratio,
    Relation,
    Word,
)
from lorid.method.formulas import for_grammar
from lorid.method.reading import ALL_REALS, read_answer
from lorid.method.symbolic import SymbolicPool, SymbolicQuestion
from lorid.method.units import ratio_of_units

# Longer answers are compared as text alone.
MAX_READ_CHARS = 2000
MAX_REMEMBERED = 65536
MIN_ROUNDED_DIGITS = 4
_PLAIN = re.compile(
    r"\s*(-?)\$?(?:(\d{1,3}(?:,\d{3})+|\d{1,18})(?:\.(\d{1,12}))?|\\frac\{(\d{1,12})\}\{(\d{1,12})\}"
    r"|(\d{1,12})/(\d{1,12}))\s*"
)


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether two answers are equal, and by which reason."""

    equal: bool
    reason: str


def _yes(reason: str) -> Verdict:
    return Verdict(equal=True, reason=reason)


def _no(reason: str) -> Verdict:
    return Verdict(equal=False, reason=reason)


class AnswerChecker:
    """Decides whether answers are equal; usable from any thread.

    Worker processes for formulas start at the first formula that needs one, and end with `close`,
    the `with` block or the checker itself. `cpu_limit_s` and `memory_limit_mib` bound one of them.
    """

    def __init__(
        self, *, num_workers: int = 1, cpu_limit_s: int = 2, memory_limit_mib: int = 1024
    ) -> None:
        self.num_workers = num_workers
        self._pool = SymbolicPool(
            num_workers=num_workers, cpu_limit_s=cpu_limit_s, memory_limit_mib=memory_limit_mib
        )
        self._symbolic: dict[SymbolicQuestion, Verdict] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, int]:
        return {
            "num_workers": self.num_workers,
            "cpu_limit_s": self._pool.cpu_limit_s,
            "memory_limit_mib": self._pool.memory_limit_mib,
        }

    def __setstate__(self, state: dict[str, int]) -> None:
        self.__init__(**state)

    def close(self) -> None:
        """End the worker processes."""
        self._pool.close()

    def equal(self, a: str, b: str) -> bool:
        """Whether two answers are equal."""
        if a == b:
            return True
        one, other = _plain_number(a), _plain_number(b)
        if one is not None and other is not None:
            return one == other
        return self.verdict(a, b).equal

    def equal_many(self, pairs: Iterable[tuple[str, str]]) -> list[bool]:
        """`equal` for each pair, in order; formulas are spread over the workers."""
        listed = list(pairs)
        if self.num_workers == 1 or not listed:
            return [self.equal(a, b) for a, b in listed]
        with ThreadPoolExecutor(self.num_workers) as threads:
            return list(threads.map(self.equal, *zip(*listed, strict=True)))

    def verdict(self, a: str, b: str) -> Verdict:
        """Equality with its reason."""
        if a == b:
            return _yes("identical")
        first, second = (a, b) if a < b else (b, a)
        one, other = _plain_number(first), _plain_number(second)
        if one is not None and other is not None:
            return _as_rationals(one == other)
        if len(first) > MAX_READ_CHARS or len(second) > MAX_READ_CHARS:
            equal = " ".join(first.split()) == " ".join(second.split())
            return _yes("equal as text") if equal else _no("different as text, too long to read")
        return self._compare(read_answer(first), read_answer(second))

    def _compare(self, a: Answer, b: Answer) -> Verdict:
        if isinstance(a, Word) and not a.text:
            return _no("no answer")
        if a == b:
            return _yes("equal as rationals" if isinstance(a, Quantity) else "equal as text")
        for compare in (
            self._relations, self._choices, _words, _quantities, _clocks, self._collections,
            self._matrices, self._formulas,
        ):  # fmt: skip
            for one, other in ((a, b), (b, a)):
                verdict = compare(one, other)
                if verdict is not None:
                    return verdict
        return _no(f"{_kind(a)} and {_kind(b)}")

    # Each comparison below returns None when it is not for this pair of kinds.

    def _relations(self, a: Answer, b: Answer) -> Verdict | None:
        if isinstance(a, Assignment) and isinstance(b, Assignment):
            if _same_name(a, b):
                return self._compare(a.value, b.value)
            return self._ask("relation", a.text, b.text)
        if isinstance(a, Relation) and isinstance(b, Relation | Assignment):
            return self._ask("relation", a.text, b.text)
        if isinstance(a, Assignment):
            return self._compare(a.value, b)
        return None

    def _choices(self, a: Answer, b: Answer) -> Verdict | None:
        if not isinstance(a, Choice):
            return None
        if isinstance(b, Choice):
            equal = a.letter == b.letter
            return _yes("the same choice") if equal else _no("different choices")
        if isinstance(b, Expression | Word) and len(b.text) == 1:
            equal = a.letter.casefold() == b.text.casefold()
            return _yes("the same choice") if equal else _no("different choices")
        return self._compare(a.content, b) if a.content is not None else None

    def _collections(self, a: Answer, b: Answer) -> Verdict | None:
        if not isinstance(a, Collection):
            return None
        if isinstance(b, Collection):
            return self._two_collections(a, b)
        if isinstance(b, Matrix) and (rows := _as_rows(a, b)) is not None:
            return self._item_by_item(rows, tuple(cell for row in b.rows for cell in row))
        if a.brackets == "{}" and len(a.items) == 1:
            return self._compare(a.items[0], b)
        return None

    def _two_collections(self, a: Collection, b: Collection) -> Verdict:
        if a.brackets == b.brackets:
            if a.is_ordered:
                return self._item_by_item(a.items, b.items)
            return self._in_any_order(a.items, b.items)
        kinds = {a.brackets, b.brackets}
        if kinds in ({"", "{}"}, {"", "U"}):
            return self._in_any_order(a.items, b.items)
        if kinds == {"", "()"} or kinds == {"<>", "()"}:
            return self._item_by_item(a.items, b.items)
        if kinds == {"", "[]"} and len(a.items) > 2:
            # Two items in square brackets are an interval, more are a list.
            return self._in_any_order(a.items, b.items)
        return _no("different brackets")

    def _item_by_item(self, a: tuple[Answer, ...], b: tuple[Answer, ...]) -> Verdict:
        if len(a) != len(b):
            return _no(f"{len(a)} and {len(b)} members")
        for one, other in zip(a, b, strict=True):
            verdict = self._compare(one, other)
            if not verdict.equal:
                return _no(f"a member: {verdict.reason}")
        return _yes("equal member by member")

    def _in_any_order(self, a: tuple[Answer, ...], b: tuple[Answer, ...]) -> Verdict:
        """A perfect matching of equal members (Kuhn 1955): equality need not be transitive."""
        if len(a) != len(b):
            return _no(f"{len(a)} and {len(b)} members")
        partner: dict[int, int] = {}

        def place(index: int, tried: set[int]) -> bool:
            for other in range(len(b)):
                if other in tried or not self._compare(a[index], b[other]).equal:
                    continue
                tried.add(other)
                if other not in partner or place(partner[other], tried):
                    partner[other] = index
                    return True
            return False

        if all(place(index, set()) for index in range(len(a))):
            return _yes("equal member by member")
        return _no("different members")

    def _matrices(self, a: Answer, b: Answer) -> Verdict | None:
        if not isinstance(a, Matrix) or not isinstance(b, Matrix):
            return None
        same_shape = [len(row) for row in a.rows] == [len(row) for row in b.rows]
        if not same_shape or a.is_determinant != b.is_determinant:
            return _no("matrices of different shapes")
        cells = [tuple(cell for row in matrix.rows for cell in row) for matrix in (a, b)]
        return self._item_by_item(cells[0], cells[1])

    def _formulas(self, a: Answer, b: Answer) -> Verdict | None:
        if not isinstance(a, Expression) or not isinstance(b, Expression | Quantity):
            return None
        if ratio_of_units(a.unit, b.unit) != 1:
            return _no("different units")
        if isinstance(b, Expression):
            if a.text == b.text:
                return _yes("equal as text")
            return self._ask("expression", a.text, b.text)
        value = f"\\frac{{{b.value.numerator}}}{{{b.value.denominator}}}"
        step = str(_step(b)) if _may_be_rounded(b) else None
        verdict = self._ask("expression", a.text, value, step=step)
        if b.is_percentage and not verdict.equal:
            hundredth = f"\\frac{{{b.value.numerator}}}{{{b.value.denominator * 100}}}"
            return self._ask("expression", a.text, hundredth)
        return verdict

    def _ask(self, kind: str, a: str, b: str, *, step: str | None = None) -> Verdict:
        one, other = for_grammar(a), for_grammar(b)
        if one == other:
            return _yes("equal as text")
        if step is None and other < one:
            one, other = other, one
        question = SymbolicQuestion(
            kind="relation" if kind == "relation" else "expression", a=one, b=other, step=step
        )
        known = self._symbolic.get(question)
        if known is None:
            answer = self._pool.compare(question)
            known = Verdict(equal=answer.equal, reason=answer.reason)
            if len(self._symbolic) >= MAX_REMEMBERED:
                self._symbolic.clear()
            self._symbolic[question] = known
        return known


# Comparisons that need no formulas


def is_plain(answer: str) -> bool:
    """Whether it is a number in its plainest form: two such are compared in microseconds."""
    return _plain_number(answer) is not None


@lru_cache(maxsize=16384)
def _plain_number(text: str) -> Fraction | None:
    """A number without a unit in its plainest form; the fast way for most of GSM8K."""
    found = _PLAIN.fullmatch(text)
    if found is None:
        return None
    sign, whole, places, top, bottom, over, under = found.groups()
    if whole is not None:
        digits = whole.replace(",", "")
        value = (
            Fraction(int(digits + places), 10 ** len(places)) if places else Fraction(int(digits))
        )
    else:
        denominator = int(bottom or under)
        # A decimal may round a fraction; that is decided where places are known.
        if denominator == 0 or 10**12 % denominator:
            return None
        value = Fraction(int(top or over), denominator)
    return -value if sign else value


def _as_rationals(equal: bool) -> Verdict:
    return _yes("equal as rationals") if equal else _no("different as rationals")


def _quantities(a: Answer, b: Answer) -> Verdict | None:
    if not isinstance(a, Quantity) or not isinstance(b, Quantity):
        return None
    ratio = ratio_of_units(a.unit, b.unit)
    if ratio is None:
        return _no("different units")
    if a.is_percentage != b.is_percentage:
        percentage, other = (a, b) if a.is_percentage else (b, a)
        if percentage.value == other.value:
            return _yes("equal, the percent sign as a unit")
        equal = _same_number(percentage, other, scale=Fraction(1, 100))
        return _yes("equal as rationals, of a hundred") if equal else _as_rationals(False)
    if a.value * ratio == b.value:
        return _as_rationals(True)
    if _same_number(a, b, scale=ratio):
        return _yes("approximately, to the places written")
    return _as_rationals(False)


def _same_number(a: Quantity, b: Quantity, *, scale: Fraction) -> bool:
    """Whether `a * scale` is `b`, or one is the other rounded to the places it was written in."""
    one, other = a.value * scale, b.value
    if one == other:
        return True
    for decimal, exact, value, target in ((a, b, one, other), (b, a, other, one)):
        step = _step(decimal) * (scale if decimal is a else 1)
        if exact.places is None and _may_be_rounded(decimal) and (target / step).denominator != 1:
            return abs(value - target) <= step
    return False


def _step(quantity: Quantity) -> Fraction:
    """One unit of the last place that was written."""
    return Fraction(1, 10 ** (quantity.places or 0))


def _may_be_rounded(quantity: Quantity) -> bool:
    return quantity.places is not None and (
        quantity.is_rounded or quantity.num_digits >= MIN_ROUNDED_DIGITS
    )


def _words(a: Answer, b: Answer) -> Verdict | None:
    if not isinstance(a, Word):
        return None
    if isinstance(b, Word):
        return _yes("equal as text") if a.text == b.text else _no("different as text")
    if isinstance(b, Expression):
        text = b.text.casefold()
        equal = text == a.text or (a.text == ALL_REALS and text == "\\mathbb{r}")
        return _yes("equal as text") if equal else _no("different as text")
    return None


def _clocks(a: Answer, b: Answer) -> Verdict | None:
    if isinstance(a, Clock) and isinstance(b, Clock):
        equal = bool(_minutes(a) & _minutes(b)) and a.seconds == b.seconds
        return _yes("the same time") if equal else _no("different times")
    if isinstance(a, Clock) and isinstance(b, Ratio) and not a.half and a.minutes and a.hours:
        equal = b.terms == (1, Fraction(a.minutes, a.hours))
        return _yes("equal as ratios") if equal else _no("different ratios")
    if isinstance(a, Clock) and isinstance(b, Quantity):
        equal = a.minutes == 0 and b.value == a.hours
        return _yes("the same hour") if equal else _no("time and number")
    if isinstance(a, Ratio) and isinstance(b, Ratio):
        return _yes("equal as ratios") if a.terms == b.terms else _no("different ratios")
    if isinstance(a, Ratio) and isinstance(b, Quantity) and len(a.terms) == 2 and a.terms[1]:
        return _as_rationals(1 / a.terms[1] == b.value)
    return None


def _minutes(clock: Clock) -> set[int]:
    """Minutes since midnight that a clock may mean; without am and pm either half."""
    minutes = clock.hours % 12 * 60 + clock.minutes
    if clock.hours > 12 or (clock.hours == 0 and not clock.half):
        return {clock.hours % 24 * 60 + clock.minutes}
    return {"a": {minutes}, "p": {minutes + 720}}.get(clock.half, {minutes, minutes + 720})


def _same_name(a: Assignment, b: Assignment) -> bool:
    r"""Whether two names may stand for one thing.

    "Area" and "A" may: a word describes. "y" and "f(x)" may when the value is a formula of x.
    """
    if a.name.casefold() == b.name.casefold():
        return True
    names = (a.name, b.name)
    if any(re.search(r"[A-Za-z ]{3,}", name) and "\\" not in name for name in names):
        return True
    if not all(re.search(r"[a-zA-Z]", name) for name in names):
        return True
    are_functions = [name == "y" or "(" in name for name in names]
    return (
        all(are_functions) and isinstance(a.value, Expression) and isinstance(b.value, Expression)
    )


def _as_rows(a: Collection, b: Matrix) -> tuple[Answer, ...] | None:
    """The members of a collection that can stand for a matrix: a vector, or rows in brackets."""
    if b.is_determinant or a.brackets not in ("()", "<>", "[]"):
        return None
    if all(isinstance(row, Collection) and row.brackets == "[]" for row in a.items):
        rows = [row.items for row in a.items if isinstance(row, Collection)]
        shapes_agree = [len(row) for row in rows] == [len(row) for row in b.rows]
        return tuple(cell for row in rows for cell in row) if shapes_agree else None
    is_vector = len(b.rows) == 1 or all(len(row) == 1 for row in b.rows)
    return a.items if is_vector and a.brackets != "[]" else None


def _kind(answer: Answer) -> str:
    if isinstance(answer, Collection):
        return {"": "list", "{}": "set", "U": "union"}.get(answer.brackets, "tuple or interval")
    return type(answer).__name__.lower()
