r"""What an answer says: a quantity, an expression, a list, an interval, an equation, a word.

    read_answer(r"\$1,200 per day")   # Quantity(value=1200, unit=dollar/day)
    read_answer("x = 3 or x = -2")    # Collection of two assignments

Reading is pure text work, linear in the answer and bounded; `lorid.method.equivalence` compares
what was read. Nothing is evaluated but rational arithmetic with bounded numbers.
"""

import re
from fractions import Fraction
from functools import lru_cache

from lorid.method.answer_kinds import (
    Answer,
    Assignment,
    Choice,
    Collection,
    Expression,
    Matrix,
    Quantity,
    Relation,
    Word,
)
from lorid.method.formulas import compact, is_mathematics
from lorid.method.normal_form import normal_form
from lorid.method.quantities import read_clock, read_quantity, read_ratio, without_currency
from lorid.method.units import Unit, ratio_of_units, split_unit, unit_of

MAX_ITEMS = 64
MAX_DEPTH = 6
ALL_REALS = "all real numbers"
_SAME_TEXT = {
    "no solutions": "\\emptyset", "no solution": "\\emptyset", "none": "\\emptyset",
    "no real solutions": "\\emptyset", "no real solution": "\\emptyset",
    "empty set": "\\emptyset", "does not exist": "dne", "undefined": "undefined",
    "infinitely many": "infinitely many solutions", "all reals": ALL_REALS,
    "\\mathbb{r}": ALL_REALS,
}  # fmt: skip
_CHOICE = re.compile(
    r"(?:(?:option|choice|answer)\s+)?(?:\(([A-Za-z])\)|([A-Z])[.):](?=\s|$)|([A-Z])$)\s*(.*)",
    re.DOTALL,
)
_MATRIX = re.compile(
    r"\\begin\{([pbBvV]?matrix|smallmatrix|array)\}(?:\{[lcr|]*\})?(.*)\\end\{\1\}", re.DOTALL
)
_BRACKETED = re.compile(r"(\\\{|\\langle|[(\[])(.*)(\\\}|\\rangle|[)\]])", re.DOTALL)
_RELATION = re.compile(r"\\(?:le|ge|ne|approx|in|equiv)(?![a-zA-Z])|[<>=]")
_SYMBOL = r"(?:\\[a-zA-Z]+|[A-Za-z])'*(?:_\{?\w+\}?)?'*(?:\^\{-1\}|\^\{?\*\}?)?"
_NAME = re.compile(
    rf"(?:m?\\angle\s*[A-Z]{{1,3}}|\\triangle\s*[A-Z]{{3}}"
    rf"|{_SYMBOL}(?:\([^()=<>]{{1,20}}\)|\[[^\[\]=<>]{{1,20}}\])?"
    r"|[A-Z]{2,4}|[A-Za-z][A-Za-z ]{2,40}(?:\([^()]{1,30}\))?)"
)
_NAMES = re.compile(r"\([a-zA-Z](?:, ?[a-zA-Z]){1,3}\)")
_SENTENCE = re.compile(
    r"[A-Za-z][A-Za-z' ]{0,80}? (?:is|are|equals|has|have|was) ([^a-z].*)", re.DOTALL
)


@lru_cache(maxsize=65536)
def read_answer(answer: str) -> Answer:
    """What an answer of bounded length says; the caller bounds the length."""
    return _read(normal_form(answer), 0)


def _read(text: str, depth: int) -> Answer:
    text = _without_braces(text.strip().rstrip(".;:,").strip())
    if depth > MAX_DEPTH:
        return _word(text)
    # In brackets a comma separates, also where it could mark thousands: "(759,499)" is a point.
    is_list = text[:1] in ("(", "[") and "," in text and _is_one_group(text)
    if not is_list and (number := read_quantity(text) or read_clock(text) or read_ratio(text)):
        return number
    for reader in (_matrix, _choice, _list, _bracketed, _relation):
        found = reader(text, depth)
        if found is not None:
            return found
    return _expression_or_word(text, depth)


def _without_braces(text: str) -> str:
    while text.startswith("{") and text.endswith("}") and _closes_at(text, 0) == len(text) - 1:
        text = text[1:-1].strip()
    return text


def _closes_at(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes, or -1."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] in "({[") - (text[position] in ")}]")
        if depth == 0:
            return position
    return -1


# Structures ---------------------------------------------------------------------------------------


def _matrix(text: str, depth: int) -> Matrix | None:
    found = _MATRIX.fullmatch(text.strip("[]() ")) or _MATRIX.fullmatch(text)
    if found is None:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found[2]) if row.strip()]
    if len(rows) > MAX_ITEMS:
        return None
    return Matrix(
        rows=tuple(
            tuple(_read(cell, depth + 1) for cell in row.split("&")[:MAX_ITEMS]) for row in rows
        ),
        is_determinant=found[1] in ("vmatrix", "Vmatrix"),
    )


def _choice(text: str, depth: int) -> Choice | None:
    found = _CHOICE.fullmatch(text)
    if found is None:
        return None
    rest = found[4].strip()
    if rest and found[1] and re.match(r"[-+*/^_(=!']|\\cdot", rest):
        return None
    letter = str(found[1] or found[2] or found[3]).upper()
    return Choice(letter=letter, content=_read(rest, depth + 1) if rest else None)


def _list(text: str, depth: int) -> Answer | None:
    plus_minus = _plus_minus(text, depth)
    if plus_minus is not None:
        return plus_minus
    if "\\cup" in text and (parts := _split(text, r"\\cup(?![a-zA-Z])")):
        return Collection(brackets="U", items=tuple(_read(part, depth + 1) for part in parts))
    compound = re.sub(r"(?<=[a-z]) (?=\d+ [a-z])", ", ", text)
    if compound != text and (quantity := _compound_quantity(compound, depth)):
        return quantity
    parts = _split(text, r",|;|(?<![a-zA-Z])(?:and|or)(?![a-zA-Z])|&|\\text\{and\}")
    if not parts:
        return None
    items = tuple(_read(part, depth + 1) for part in parts)
    if any(isinstance(item, Word) and not item.text for item in items):
        return None
    if sum(isinstance(item, Word) for item in items) > len(items) // 2 and not _is_short(parts):
        return None
    if (quantity := _compound(items)) is not None:
        return quantity
    name = items[0].name if isinstance(items[0], Assignment) else None
    if name and not any(isinstance(item, Assignment) for item in items[1:]):
        # "x = 2, 3" and "x = 2 or 3" name one variable for all.
        values = tuple(item.value if isinstance(item, Assignment) else item for item in items)
        return Collection(brackets="", items=values)
    names = {item.name for item in items if isinstance(item, Assignment)}
    if len(names) == 1 and all(isinstance(item, Assignment) for item in items):
        return Collection(
            brackets="", items=tuple(item.value for item in items if isinstance(item, Assignment))
        )
    return Collection(brackets="", items=items)


def _is_short(parts: list[str]) -> bool:
    return all(len(part.split()) <= 3 for part in parts)


def _compound_quantity(text: str, depth: int) -> Quantity | None:
    return _compound(tuple(_read(part, depth + 1) for part in _split(text, ",|and")))


def _compound(items: tuple[Answer, ...]) -> Quantity | None:
    """Quantities of one dimension in falling order are one: "4 hours and 5 minutes"."""
    quantities = [item for item in items if isinstance(item, Quantity) and item.unit.known]
    if len(quantities) != len(items) or len(items) < 2:
        return None
    smallest = quantities[-1].unit
    total = Fraction(0)
    seen: list[Fraction] = []
    for quantity in quantities:
        ratio = ratio_of_units(quantity.unit, smallest)
        if ratio is None or (seen and ratio >= seen[-1]):
            return None
        seen.append(ratio)
        total += quantity.value * ratio
    return Quantity(value=total, unit=smallest)


def _plus_minus(text: str, depth: int) -> Answer | None:
    if text.count("\\pm") != 1 or "," in text:
        return None
    value = text.rpartition("=")[2]
    before, _, after = value.partition("\\pm")
    signs = ("+", "-")
    items = tuple(
        _read(f"{before.strip()}{sign}{after.strip()}".removeprefix("+"), depth + 1)
        for sign in signs
    )
    return Collection(brackets="", items=items)


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators outside of brackets; [] when there is only one part.

    A comma inside a number of thousands separates nothing.
    """
    parts: list[str] = []
    depth, start = 0, 0
    for found in re.finditer(
        rf"\\[{{}}]|[({{\[]|[)}}\]]|\\langle|\\rangle|\d{{1,3}}(?:,\d{{3}})+(?!\d|,\d)|{separator}",
        text,
    ):
        token = found.group()
        if token in ("\\{", "(", "{", "[", "\\langle"):
            depth += 1
        elif token in ("\\}", ")", "}", "]", "\\rangle"):
            depth -= 1
        elif depth == 0 and not token[0].isdigit():
            parts.append(text[start : found.start()])
            start = found.end()
    parts = [part.strip() for part in (*parts, text[start:])]
    # "3, 4, and 5" separates twice in a row.
    parts = [part for part in parts if part]
    return parts if 1 < len(parts) <= MAX_ITEMS else []


def _bracketed(text: str, depth: int) -> Collection | Word | None:
    found = _BRACKETED.fullmatch(text)
    if found is None or not _is_one_group(text):
        return None
    opening, inside, closing = found.groups()
    is_set = opening == "\\{"
    if is_set != (closing == "\\}") or (opening == "\\langle") != (closing == "\\rangle"):
        return None
    parts = _split(inside, ",|;") or _split_all(inside)
    if not parts and not is_set:
        return None
    brackets = {"\\{": "{}", "\\langle": "<>"}.get(opening, opening + closing)
    items = tuple(_read(part, depth + 1) for part in (parts or [inside]))
    if brackets == "()" and compact(inside) == "-\\infty,\\infty":
        return Word(text=ALL_REALS)
    return Collection(brackets=brackets, items=items)


def _split_all(inside: str) -> list[str]:
    """In brackets a single comma separates even where it could mark thousands: "(1,234)"."""
    return (
        [part.strip() for part in inside.split(",")]
        if re.fullmatch(r"[-\d,. ]+", inside) and "," in inside
        else []
    )


def _is_one_group(text: str) -> bool:
    depth = 0
    for found in re.finditer(r"\\[{}]|\\langle|\\rangle|[(\[{)\]}]", text):
        token = found.group()
        depth += 1 if token in ("\\{", "(", "[", "{", "\\langle") else -1
        if depth == 0 and found.end() != len(text):
            return False
    return depth == 0


def _relation(text: str, depth: int) -> Answer | None:
    operators = [found for found in _RELATION.finditer(text)]
    if not operators:
        return None
    kinds = {found.group() for found in operators}
    if kinds == {"="} or kinds == {"=", "\\approx"}:
        name = text[: operators[0].start()].strip()
        value = text[operators[-1].end() :].strip()
        if not value or not name:
            return _read(value or name, depth + 1)
        has_letters = re.search(r"[a-zA-Z]", name) is not None
        is_sum = not has_letters and not re.search(r"[a-zA-Z]", value)
        if _NAME.fullmatch(name) or _NAMES.fullmatch(name) or is_sum:
            return Assignment(name=compact(name), value=_read(value, depth + 1), text=compact(text))
        return Relation(text=compact(text))
    if kinds == {"\\in"} and len(operators) == 1:
        return _read(text[operators[0].end() :], depth + 1)
    if kinds == {"\\approx"} and len(operators) == 1:
        return _read("\\approx " + text[operators[0].end() :].strip(), depth + 1)
    interval = _interval(text, operators, depth)
    return interval or Relation(text=compact(text))


def _interval(text: str, operators: list[re.Match[str]], depth: int) -> Collection | None:
    r"""`a < x \le b`, `x > a` as the interval that it says."""
    kinds = [found.group() for found in operators]
    ends = [0, *(end for found in operators for end in found.span()), len(text)]
    parts = [text[ends[i] : ends[i + 1]].strip() for i in range(0, len(ends), 2)]
    if len(parts) not in (2, 3) or not set(kinds) <= {"<", ">", "\\le", "\\ge"}:
        return None
    is_variable = [re.fullmatch(r"\\?[a-zA-Z]+(?:_\{?\w\}?)?", part) is not None for part in parts]
    if is_variable.count(True) != 1:
        return None
    if all(kind in (">", "\\ge") for kind in kinds):
        parts, is_variable = parts[::-1], is_variable[::-1]
        kinds = [{">": "<", "\\ge": "\\le"}[kind] for kind in kinds[::-1]]
    if not all(kind in ("<", "\\le") for kind in kinds):
        return None
    where = is_variable.index(True)
    if len(parts) == 3 and where != 1:
        return None
    low, high = (
        ("-\\infty", parts[1])
        if where == 0
        else (parts[0], parts[2] if len(parts) == 3 else "\\infty")
    )
    opening = "(" if where == 0 or kinds[0] == "<" else "["
    closing = ")" if (where == 1 and len(parts) == 2) or kinds[-1] == "<" else "]"
    items = (_read(low, depth + 1), _read(high, depth + 1))
    return Collection(brackets=opening + closing, items=items)


# Expressions and words ----------------------------------------------------------------------------


def _expression_or_word(text: str, depth: int) -> Answer:
    if found := re.fullmatch(r"\(?(\d{1,100})\)?_\{?(\d{1,2})\}?", text):
        # A numeral in another base; the base is an annotation like a unit.
        return Quantity(value=Fraction(int(found[1])), unit=Unit(words=(f"base {found[2]}",)))
    sign, body, currency = without_currency(text)
    value, unit_text = split_unit(body)
    if is_mathematics(value):
        value = f"-({value})" if sign < 0 else value
        unit = Unit(known=(currency,)) if currency else unit_of(unit_text)
        return Expression(text=compact(value), unit=unit)
    if found := _SENTENCE.fullmatch(text):
        said = _read(found[1], depth + 1)
        if isinstance(said, Quantity | Expression):
            return said
    return _word(text)


def _word(text: str) -> Word:
    folded = " ".join(re.sub(r"[\"'`.,;:!?_-]+", " ", text.casefold()).split())
    folded = re.sub(r"^(?:the|a|an)\s+", "", folded)
    return Word(text=_SAME_TEXT.get(folded, folded))
