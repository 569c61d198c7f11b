"""What an answer can be: the values that `lorid.method.reading` makes and the checker compares."""

from dataclasses import dataclass
from fractions import Fraction

from lorid.method.units import NO_UNIT, Unit


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A rational number with its unit.

    `places` is the number of decimal places that were written, None when it was not a decimal;
    `num_digits` counts its significant digits. `is_rounded`: an approximation sign stood before it.
    """

    value: Fraction
    unit: Unit = NO_UNIT
    is_percentage: bool = False
    places: int | None = None
    num_digits: int = 0
    is_rounded: bool = False


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Mathematics that is no rational number, with its unit."""

    text: str
    unit: Unit = NO_UNIT


@dataclass(frozen=True, kw_only=True)
class Word:
    """Text, case folded, without punctuation."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A letter of a multiple choice, and what stood behind it."""

    letter: str
    content: "Answer | None"


@dataclass(frozen=True, kw_only=True)
class Collection:
    """Items in brackets; `brackets` is "" for a bare list, "{}" for a set, "U" for a union.

    Order counts in round and square brackets (tuples and intervals) and in angle brackets.
    """

    brackets: str
    items: "tuple[Answer, ...]"

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the items is part of the answer."""
        return self.brackets not in ("", "{}", "U")


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Rows of a matrix; a determinant is another thing than the matrix."""

    rows: "tuple[tuple[Answer, ...], ...]"
    is_determinant: bool


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """`name = value`, with the value as the answer; `text` is the whole equation."""

    name: str
    value: "Answer"
    text: str


@dataclass(frozen=True, kw_only=True)
class Relation:
    """An equation or inequality that is no assignment, as normalised text."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Hours and minutes that can be a time of day or a ratio; `half` is "a", "p" or ""."""

    hours: int
    minutes: int
    seconds: int
    half: str


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """`a : b : c` in lowest terms."""

    terms: tuple[Fraction, ...]


Answer = (
    Quantity
    | Expression
    | Word
    | Choice
    | Collection
    | Matrix
    | Assignment
    | Relation
    | Clock
    | Ratio
)
