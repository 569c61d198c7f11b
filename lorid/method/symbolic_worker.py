r"""A process that compares two formulas for `lorid.method.symbolic`; started as a script.

Reads one JSON request a line, writes one JSON answer a line. Formulas come from strangers: they
arrive as text that holds nothing but tokens of mathematics, are parsed by Math-Verify's LaTeX
grammar (never by Python's), and run under limits of CPU time and memory that this process sets for
itself. What exceeds them ends the process, and its owner starts another.

Two expressions are equal when they agree at several random points to 30 digits (the identity test
of Schwartz and Zippel); what cannot be evaluated, and systems of relations, go to Math-Verify's
own comparison, in both orders. This file imports nothing of lorid.
"""

# pyright: basic, reportMissingTypeStubs=false
import json
import logging
import sys
from typing import Any

POINTS = ((3, 7), (-11, 5), (17, 13), (-2, 9), (23, 4))
DIGITS = 40
TOLERANCE = "1e-25"
MIB = 1024**2


def main() -> None:
    """Serve until standard input ends."""
    memory_mib, cpu_s = int(sys.argv[1]), int(sys.argv[2])
    import sympy  # noqa: F401  # loaded before the limits and the first request
    from latex2sympy2_extended import latex2sympy  # noqa: F401
    from math_verify import grader  # noqa: F401

    logging.disable(logging.CRITICAL)
    _limit_memory(memory_mib)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        _limit_cpu(cpu_s)
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _limit_memory(mib: int) -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (mib * MIB, mib * MIB))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        pass  # no such limit on this platform: the owner's deadline still holds


def _limit_cpu(seconds: int) -> None:
    """Move the soft limit ahead of what was used so far; crossing it ends this process."""
    try:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(used.ru_utime + used.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (spent + seconds, resource.RLIM_INFINITY))
    except (ImportError, ValueError, OSError):
        pass


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        equal, reason = _compare(request)
    except MemoryError:
        raise SystemExit(1) from None
    except Exception as error:
        return {"equal": False, "reason": f"not comparable ({type(error).__name__})"}
    return {"equal": equal, "reason": reason}


def _compare(request: dict[str, Any]) -> tuple[bool, str]:
    a, b = _parsed(request["a"]), _parsed(request["b"])
    if request["kind"] == "relation":
        equal = _same_relation(a, b)
        return equal, "symbolic" if equal else "different relations"
    if "step" in request:
        return _approximates(a, b, step=request["step"])
    equal = _same_value(a, b)
    if equal is None:
        equal = _by_math_verify(a, b)
    return equal, "symbolic" if equal else "different symbolically"


_CACHE: dict[str, Any] = {}


def _parsed(text: str) -> Any:
    import sympy
    from latex2sympy2_extended import latex2sympy

    if text not in _CACHE:
        if len(_CACHE) > 2000:
            _CACHE.clear()
        parsed: Any = latex2sympy(
            text, is_real=None, convert_degrees=False, normalization_config=None
        )
        imaginary = [symbol for symbol in parsed.free_symbols if symbol.name == "i"]
        _CACHE[text] = parsed.subs({symbol: sympy.I for symbol in imaginary})
    return _CACHE[text]


def _points(*expressions: Any) -> list[dict[Any, Any]]:
    """The same value for the same name on both sides, another for every name."""
    import sympy

    symbols = set().union(*(expression.free_symbols for expression in expressions))
    names = sorted({symbol.name for symbol in symbols})
    if not names:
        return [{}]
    return [
        {
            symbol: sympy.Rational(
                p + 5 * names.index(symbol.name), q + 2 * names.index(symbol.name)
            )
            for symbol in symbols
        }
        for p, q in POINTS
    ]


def _value(expression: Any, point: dict[Any, Any]) -> Any:
    """A complex number of mpmath at a point; None where there is none."""
    import sympy

    value = sympy.N(expression.subs(point) if point else expression, DIGITS)
    if not value.is_number or value.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo):
        return None
    return sympy.sympify(value)


def _close(a: Any, b: Any) -> bool:
    import sympy

    scale = 1 + abs(a) + abs(b)
    return bool(sympy.N(abs(a - b) / scale, 15) < sympy.Float(TOLERANCE))


def _same_value(a: Any, b: Any) -> bool | None:
    """Equality at every point where both have values; None when there is no such point."""
    import sympy

    if not all(isinstance(one, sympy.Expr) for one in (a, b)):
        return None
    if a.has(sympy.core.function.AppliedUndef) or b.has(sympy.core.function.AppliedUndef):
        return None
    if {s.name for s in a.free_symbols} != {s.name for s in b.free_symbols} and not (
        _is_degenerate(a) or _is_degenerate(b)
    ):
        return False
    num_seen = 0
    for point in _points(a, b):
        one, other = _value(a, point), _value(b, point)
        if one is None or other is None:
            continue
        if not _close(one, other):
            return False
        num_seen += 1
    return True if num_seen else None


def _is_degenerate(expression: Any) -> bool:
    """Whether a symbol may cancel: `x/x`, `0*y`; only then names may differ."""
    import sympy

    return len(sympy.simplify(expression).free_symbols) < len(expression.free_symbols)


def _approximates(a: Any, b: Any, *, step: str) -> tuple[bool, str]:
    """`b` is a decimal, `step` one unit of its last written place."""
    import sympy

    exact, decimal, unit = _value(a, {}), _value(b, {}), sympy.Rational(step)
    if exact is None or decimal is None or a.free_symbols:
        return False, "different symbolically"
    in_units = exact / unit
    is_representable = _close(
        in_units, sympy.Integer(int(sympy.nsimplify(sympy.re(in_units).round())))
    )
    if is_representable:
        equal = _close(exact, decimal)
        return equal, "symbolic" if equal else "different symbolically"
    equal = bool(abs(exact - decimal) <= unit)
    return equal, "approximately, to the places written" if equal else "different symbolically"


def _same_relation(a: Any, b: Any) -> bool:
    import sympy

    kinds = [_direction(one) for one in (a, b)]
    if kinds[0] is None or kinds[1] is None:
        return _by_math_verify(a, b)
    (name, sign), (other_name, other_sign) = kinds[0], kinds[1]
    if name != other_name:
        return False
    differences = [sign * (a.lhs - a.rhs), other_sign * (b.lhs - b.rhs)]
    ratio = None
    for point in _points(*differences):
        one, other = (_value(difference, point) for difference in differences)
        if one is None or other is None or _close(other, sympy.Integer(0)):
            continue
        if ratio is not None and not _close(one / other, ratio):
            return False
        ratio = one / other
    if ratio is None or _close(ratio, sympy.Integer(0)):
        return _by_math_verify(a, b)
    return name in ("=", "!=") or bool(sympy.re(ratio) > 0)


def _direction(relation: Any) -> tuple[str, int] | None:
    import sympy

    for kind, name, sign in (
        (sympy.Eq, "=", 1), (sympy.Lt, "<", 1), (sympy.Gt, "<", -1), (sympy.Le, "<=", 1),
        (sympy.Ge, "<=", -1), (sympy.Ne, "!=", 1),
    ):  # fmt: skip
        if isinstance(relation, kind):
            return name, sign
    return None


def _by_math_verify(a: Any, b: Any) -> bool:
    from math_verify.grader import sympy_expr_eq

    return any(
        sympy_expr_eq(one, other, float_rounding=12, numeric_precision=30, strict=True)
        for one, other in ((a, b), (b, a))
    )


if __name__ == "__main__":
    main()
