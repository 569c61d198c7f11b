r"""Which texts are formulas, and how one is spelled and bounded before anything computes with it.

is_mathematics("x.__class__")         # False: a dot is no token of a formula
is_bounded("9^{9^{9}}")               # False: a tower of powers
for_grammar("0.5sin(x)")              # r"\frac{1}{2}\sin (x)"
"""

import re
from fractions import Fraction

MAX_FORMULA_CHARS = 400
MAX_NESTING = 20
MAX_EXPONENT_DIGITS = 4
MAX_FACTORIAL_DIGITS = 3
_FUNCTIONS = frozenset(
    ("sin", "cos", "tan", "cot", "sec", "csc", "arcsin", "arccos", "arctan", "log", "ln", "exp",
     "sinh", "cosh", "tanh", "abs", "gcd", "lcm", "max", "min"))  # fmt: skip
_COMMANDS = frozenset(
    [
        "frac",
        "sqrt",
        "cdot",
        "pi",
        "infty",
        "pm",
        "mp",
        "cup",
        "cap",
        "in",
        "le",
        "ge",
        "ne",
        "approx",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "arcsin",
        "arccos",
        "arctan",
        "sinh",
        "cosh",
        "tanh",
        "log",
        "ln",
        "exp",
        "lfloor",
        "rfloor",
        "lceil",
        "rceil",
        "lvert",
        "rvert",
        "vert",
        "overline",
        "bar",
        "binom",
        "theta",
        "alpha",
        "beta",
        "gamma",
        "delta",
        "lambda",
        "mu",
        "phi",
        "omega",
        "sigma",
        "rho",
        "tau",
        "epsilon",
        "varepsilon",
        "psi",
        "emptyset",
        "circ",
        "angle",
        "bmod",
        "mod",
    ]
)
_MATH_TOKEN = re.compile(
    r"\s+|\\([a-zA-Z]+)|([a-zA-Z]+)|\d+(?:\.\d+)?|\.\d+|\\[{}|]|[-+*/^_(){}\[\]|,!=<>:]|'"
)


def is_mathematics(text: str) -> bool:
    """Whether a text holds nothing but tokens of formulas, so that it may be parsed as one."""
    if re.search(r"\d \d", text) or re.search(
        r"(?<![\\a-zA-Z])(?!(?:sin|cos|tan|log|ln) )[a-zA-Z]{2,} ", text
    ):
        return False
    position, has_operator, letters = 0, False, 0
    while position < len(text):
        found = _MATH_TOKEN.match(text, position)
        if found is None:
            return False
        command, name = found[1], found[2]
        if command is not None and command not in _COMMANDS:
            return False
        if name is not None:
            if len(name) > 3 and name not in _FUNCTIONS:
                return False
            letters += 1
        has_operator = (
            has_operator or command is not None or bool(re.match(r"[-+*/^_!|\d(]", found.group()))
        )
        position = found.end()
    has_operand = letters > 0 or any(map(str.isdigit, text)) or "\\" in text
    return (has_operator and has_operand) or (letters == 1 and len(text.strip()) == 1)


def compact(text: str) -> str:
    """Without spaces that say nothing; one between letters stays."""
    text = re.sub(r"\s*([-+*/^_=<>(){}\[\],|!])\s*", r"\1", text)
    return re.sub(
        r"(?<![a-zA-Z0-9])\s+|\s+(?![a-zA-Z0-9])",
        "",
        re.sub(r"(?<=[0-9}])\s+(?=[a-zA-Z\\])", "", text),
    )


def is_bounded(formula: str) -> bool:
    """Whether a formula is short and shallow and holds no tower of powers or large factorial."""
    if len(formula) > MAX_FORMULA_CHARS:
        return False
    depth = deepest = 0
    for char in formula:
        depth += (char in "({[") - (char in ")}]")
        deepest = max(deepest, depth)
    has_tower = re.search(
        r"\^\{?[^{}a-zA-Z\\]*\d\^|\^\S\^|\^\{[^{}]*\^\{?\d+\}?[^{}a-z]*\}\^", formula
    )
    powers = re.findall(r"\^\{?-?(\d+)|\^\(-?(\d+)", formula)
    factorials = re.findall(r"(\d+)!", formula)
    return (
        deepest <= MAX_NESTING
        and not has_tower
        and not re.search(r"!\s*!|[)}\]]\s*!|!\s*\^|\^\{?\d+!", formula)
        and all(len(one or other) <= MAX_EXPONENT_DIGITS for one, other in powers)
        and all(len(digits) <= MAX_FACTORIAL_DIGITS for digits in factorials)
    )


_FUNCTION = re.compile(
    r"(?<![\\a-zA-Z])(arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|log|ln|exp)"
    r"(?![a-zA-Z])"
)


def for_grammar(text: str) -> str:
    """A formula in the spelling of Math-Verify's grammar: braces, commands, no decimals."""
    text = _FUNCTION.sub(r"\\\1 ", text)
    text = re.sub(r"(?<!\d)(\d*)\.(\d+)", _decimal_fraction, text)
    text = re.sub(r"\^(-?\d{2,}|-\d)", r"^{\1}", text)
    text = re.sub(r"(?<![a-zA-Z\\])abs\(([^()]*)\)", r"|\1|", text)
    text = re.sub(r"(\d),(?=\d{3})", r"\1", text)
    text = re.sub(r"(?<!\\sqrt)\[([^\[\]]*)\]", r"(\1)", text)
    return text.replace("\\bmod", "\\mod")


def _decimal_fraction(found: re.Match[str]) -> str:
    value = Fraction(int((found[1] or "0") + found[2]), 10 ** len(found[2]))
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"
