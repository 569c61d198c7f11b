r"""The answer checker, measured by layer and beside plain Math-Verify on the same pairs.

    python benchmarks/checker.py [--pairs 20000]

Writes `benchmarks/results/checker-DATE.json`. Every pair is made, so its truth is known, and
lorid must be right on all of them. No pair occurs twice, so nothing is remembered from before. The
mixed load has the shares that answers of MATH roughly have: 60% plain numbers, 25% units, lists and
the like, 15% formulas. Math-Verify parses and verifies each pair of a sample, without time-outs, in
the order (gold, answer) that it wants. Fails below 100,000 plain pairs or 200 mixed pairs a second.
"""

import argparse
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from math_verify import parse, verify
from result_file import write_result

from lorid.method.equivalence import AnswerChecker

GOAL_PLAIN, GOAL_MIXED = 100_000, 200
NUM_FORMULAS = 1500
NUM_FOR_MATH_VERIFY = 600


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two answers, and whether they are equal."""

    gold: str
    answer: str
    is_equal: bool


def plain(rng: random.Random) -> Pair:
    """Integers, decimals, money, thousands, simple fractions."""
    number, is_equal = rng.randint(-(10**7), 10**7), rng.random() < 0.5
    other = number if is_equal else number + rng.choice((-100, -1, 1, 10, 9 * number or 1))
    answer = rng.choice((f"{other}", f"{other}.00", f"{other:,}", f"{2 * other}/2"))
    return Pair(gold=str(number), answer=answer, is_equal=is_equal)


def read(rng: random.Random) -> Pair:
    """What must be read: units, percentages, lists, tuples, intervals, mixed numbers, times."""
    a, b, c = rng.randint(1, 9999), rng.randint(1, 9999), rng.randint(2, 97)
    is_equal = rng.random() < 0.5
    d = a if is_equal else a + rng.randint(1, 50)
    return Pair(
        is_equal=is_equal,
        **dict(
            zip(
                ("gold", "answer"),
                rng.choice(
                    (
                        (f"{a}", f"{d} dollars per day"),
                        (f"\\${a}.50", f"{d}.5 dollars"),
                        (f"{a} cm", f"{d} centimeters"),
                        (f"{a / 100}", f"{d}\\%"),
                        (f"{a},{b + 10**5}", f"{b + 10**5} and {d}"),
                        (f"({a},{b})", f"\\left( {d}, {b} \\right)"),
                        (f"[{a},\\infty)", f"x \\ge {d}"),
                        (f"{a}\\frac{{1}}{{{c}}}", f"\\dfrac{{{d * c + 1}}}{{{c}}}"),
                        (f"\\text{{value }} = {a}", f"x = {d}"),
                        (f"{a}^\\circ", f"{d}"),
                    )
                ),
                strict=True,
            )
        ),
    )


def formula(rng: random.Random) -> Pair:
    """What must be computed: radicals, polynomials, multiples of pi, equations, complex numbers."""
    a, b, c = rng.randint(2, 60), rng.randint(2, 60), rng.choice((2, 3, 5, 6, 7, 10, 11, 13))
    is_equal = rng.random() < 0.5
    d = a if is_equal else a + rng.randint(1, 5)
    gold, answer = rng.choice(
        (
            (f"{a}\\sqrt{{{c}}}", f"\\sqrt{{{d * d * c}}}"),
            (f"x^2+{a + b}x+{a * b}", f"(x+{d})(x+{b})"),
            (f"\\frac{{{a}\\pi}}{{{b}}}", f"{2 * d}\\pi/{2 * b}"),
            (f"y={a}x+{b}", f"{d}x-y+{b}=0"),
            (f"{a}+{b}i", f"{b}i+{d}"),
            (f"\\frac{{{a}}}{{\\sqrt{{{c}}}}}", f"\\frac{{{d}\\sqrt{{{c}}}}}{{{c}}}"),
            (f"{a}x-{b}y", f"-{b}y+{d}x"),
        )
    )
    return Pair(gold=gold, answer=answer, is_equal=is_equal)


def mixed(rng: random.Random) -> Pair:
    """The shares that answers of MATH roughly have."""
    return rng.choices((plain, read, formula), weights=(60, 25, 15))[0](rng)


def distinct(make: Callable[[random.Random], Pair], *, count: int, seed: int) -> list[Pair]:
    """Pairs that differ from each other."""
    rng, found = random.Random(seed), {}
    while len(found) < count:
        pair = make(rng)
        found[pair.gold, pair.answer] = pair
    return list(found.values())


def measure(
    pairs: list[Pair], equal: Callable[[str, str], bool], clock: Callable[[], float]
) -> tuple[float, int]:
    """Pairs a second, and how many were judged wrongly."""
    started = clock()
    verdicts = [equal(pair.gold, pair.answer) for pair in pairs]
    seconds = clock() - started
    wrong = sum(v != pair.is_equal for v, pair in zip(verdicts, pairs, strict=True))
    return len(pairs) / seconds, wrong


def math_verify_equal(gold: str, answer: str) -> bool:
    """Plain Math-Verify: LaTeX in dollar signs, as its readers of model output see it."""
    # Without time limits, as its types do not foresee.
    parsed = [parse(f"${text}$", parsing_timeout=cast(int, None)) for text in (gold, answer)]
    return bool(verify(parsed[0], parsed[1], timeout_seconds=None))


def main() -> None:
    """Measure, check, write."""
    parser = argparse.ArgumentParser(description="Measure the answer checker.")
    parser.add_argument("--pairs", type=int, default=20_000)
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    counts = {plain: 10 * args.pairs, read: args.pairs, formula: NUM_FORMULAS, mixed: NUM_FORMULAS}
    layers: dict[str, dict[str, float | int]] = {}
    with AnswerChecker() as checker:
        checker.equal(r"\sqrt{8}", r"2\sqrt{2}")
        for seed, (make, count) in enumerate(counts.items(), start=1):
            pairs = distinct(make, count=count, seed=seed)
            # Formulas are computed in a worker process: there only the wall clock sees them.
            clock = time.process_time if make in (plain, read) else time.perf_counter
            rate, wrong = measure(pairs, checker.equal, clock)
            assert wrong == 0, f"{wrong} of {count} {make.__name__} pairs judged wrongly"
            sample = pairs[:NUM_FOR_MATH_VERIFY]
            peer_rate, peer_wrong = measure(sample, math_verify_equal, time.process_time)
            layers[make.__name__] = {
                "pairs": count,
                "pairs_per_s": round(rate),
                "wrong": wrong,
                "math_verify_pairs": len(sample),
                "math_verify_pairs_per_s": round(peer_rate),
                "math_verify_wrong": peer_wrong,
                "ratio": round(rate / peer_rate, 1),
            }
    file = write_result(
        "checker",
        {"layers": layers},
        command=f"python benchmarks/checker.py --pairs {args.pairs}",
        packages=("math-verify", "latex2sympy2_extended", "sympy"),
    )
    print(f"{file}: {layers}")
    if layers["plain"]["pairs_per_s"] < GOAL_PLAIN or layers["mixed"]["pairs_per_s"] < GOAL_MIXED:
        raise SystemExit("below the goal")


if __name__ == "__main__":
    main()
