"""Stopping rules of other papers, and `bayes` beside them, over the same logged attempts.

* majority of k: draw k answers, take the most frequent (self-consistency, arXiv 2203.11171).
* ESC, Early-Stopping Self-Consistency (arXiv 2401.10480): draw windows of w answers; stop when all
  of one window are the same; at k answers stop anyway. The most frequent answer drawn wins.
* Adaptive-Consistency (arXiv 2305.11860): after every answer, stop when the leader's chance of
  being the majority is above 0.95. Beta: of the leader against the second, Beta(v1 + 1, v2 + 1)
  above one half. Dirichlet: of the leader against all, one pseudo-count each.

Written from the papers. Each takes one of two streams of answers: the intuitive side's alone, one
generation each, or both sides' in turn as `bayes` pools them, where an intuitive answer costs one
generation and a deep one two, since its knowledge is drawn too. A text without an answer costs what
it costs and has no vote; a window that holds one is not unanimous.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from lorid.method.attempts import JudgedAttempts
from lorid.method.comparison import figures_by_bound
from lorid.method.scoring import wilson_interval
from lorid.method.stopping import Policy
from lorid.report.svg import Axis, Series, line_chart

THRESHOLD = 0.95
Answer = int | None
# How many answers of the stream a rule draws.
Stop = Callable[[Sequence[Answer]], int]


def majority(answers: Sequence[Answer]) -> Answer:
    """The most frequent answer, of equals the first; None where there is none."""
    counts = Counter(answer for answer in answers if answer is not None)
    return max(counts, key=lambda answer: counts[answer], default=None)


def drawn_by_majority(answers: Sequence[Answer]) -> int:
    """All of them."""
    return len(answers)


def drawn_by_esc(answers: Sequence[Answer], *, window: int) -> int:
    """Up to the end of the first unanimous window."""
    for end in range(window, len(answers) + 1, window):
        if None not in answers[end - window : end] and len(set(answers[end - window : end])) == 1:
            return end
    return len(answers)


def drawn_by_adaptive(
    answers: Sequence[Answer], *, chance: Callable[[tuple[int, ...]], float]
) -> int:
    """Up to the first answer after which `chance` of the counts, largest first, is enough."""
    counts: Counter[int] = Counter()
    for index, answer in enumerate(answers):
        if answer is not None:
            counts[answer] += 1
        if counts and chance(tuple(sorted(counts.values(), reverse=True))) > THRESHOLD:
            return index + 1
    return len(answers)


@lru_cache(maxsize=65536)
def beta_chance(counts: tuple[int, ...]) -> float:
    """P(p > 1/2), p ~ Beta(v1 + 1, v2 + 1), by the trapezoid rule."""
    first, second = counts[0], counts[1] if len(counts) > 1 else 0
    at = np.linspace(0.5, 1.0, 4001)
    density = at**first * (1 - at) ** second
    whole = math.gamma(first + 1) * math.gamma(second + 1) / math.gamma(first + second + 2)
    return float(np.trapezoid(density, at) / whole)


@lru_cache(maxsize=65536)
def dirichlet_chance(counts: tuple[int, ...]) -> float:
    """P(the first of Dirichlet(v + 1) is the largest), over the answers seen and one unseen.

    Shares of a Dirichlet are gammas divided by their sum, so it is the chance that the first gamma
    is above all others: of integer shape, their distribution functions are sums.
    """
    shapes = [count + 1 for count in (*counts, 0)]
    at = np.linspace(1e-9, 80.0 + shapes[0], 8001)
    density = np.exp((shapes[0] - 1) * np.log(at) - at - math.lgamma(shapes[0]))
    for shape in shapes[1:]:
        terms = [np.exp(n * np.log(at) - at - math.lgamma(n + 1)) for n in range(shape)]
        density *= 1 - np.sum(terms, axis=0)
    return float(np.trapezoid(density, at))


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One problem's answers in the order of their rounds, and what each of them costs."""

    answers: Sequence[Answer]
    costs: Sequence[int]
    right: frozenset[int]


def intuitive(item: JudgedAttempts) -> Stream:
    """The intuitive side alone: plain self-consistency of one adapter."""
    return Stream(
        answers=item.intuitive, costs=[1] * len(item.intuitive), right=item.right or frozenset()
    )


def pooled(item: JudgedAttempts) -> Stream:
    """Both sides in turn."""
    pairs = list(zip(item.intuitive, item.deep, strict=True))
    return Stream(
        answers=[answer for pair in pairs for answer in pair],
        costs=[1, 2] * len(pairs),
        right=item.right or frozenset(),
    )


STREAMS: dict[str, Callable[[JudgedAttempts], Stream]] = {
    "intuitive": intuitive,
    "both sides": pooled,
}


def contenders() -> Iterator[tuple[str, str, Stop]]:
    """Family, name and rule of each contender."""
    yield "majority", "majority", drawn_by_majority
    for window in (2, 3, 4, 5, 6, 8):

        def esc(answers: Sequence[Answer], window: int = window) -> int:
            return drawn_by_esc(answers, window=window)

        yield "ESC", f"ESC, w={window}", esc
    for name, chance in (("Beta", beta_chance), ("Dirichlet", dirichlet_chance)):

        def adaptive(
            answers: Sequence[Answer], chance: Callable[[tuple[int, ...]], float] = chance
        ) -> int:
            return drawn_by_adaptive(answers, chance=chance)

        yield f"Adaptive, {name}", f"Adaptive-Consistency, {name}", adaptive


def at_most(streams: Sequence[Stream], stop: Stop, *, most: int) -> dict[str, Any]:
    """A rule over all problems, with at most so many answers each."""
    num_right, spent, drawn = 0, 0, 0
    for stream in streams:
        answers = stream.answers[:most]
        count = stop(answers)
        num_right += majority(answers[:count]) in stream.right
        spent += sum(stream.costs[:count])
        drawn += count
    total = len(streams)
    low, high = wilson_interval(num_right, total)
    return {
        "most_answers": most, "accuracy": num_right / total,
        "interval": [round(low, 4), round(high, 4)],
        "generations_a_question": round(spent / total, 2),
        "answers_a_question": round(drawn / total, 2),
    }  # fmt: skip


def ours(judged: Sequence[JudgedAttempts], *, rule: str, rounds: int) -> list[dict[str, Any]]:
    """A rule of lorid at every bound on its rounds."""
    figures = figures_by_bound(judged, policy=Policy(rule=rule, max_rounds=rounds))
    return [
        {
            "max_rounds": one.max_rounds, "accuracy": one.accuracy,
            "generations_a_question": round(one.mean_generations, 2),
        }
        for one in figures
    ]  # fmt: skip


def rules_figures(judged: Sequence[JudgedAttempts], *, rounds: int) -> dict[str, Any]:
    """Every contender on every stream, at every bound on its answers; lorid's rules too."""
    found: list[dict[str, Any]] = []
    for stream_name, make in STREAMS.items():
        streams = [make(item) for item in judged]
        whole = len(streams[0].answers)
        for family, name, stop in contenders():
            bounds = range(1, whole + 1) if family in ("majority", "Adaptive, Beta") else [whole]
            found += [
                {"rule": name, "stream": stream_name, **at_most(streams, stop, most=most)}
                for most in bounds
            ]
    require_equal_to_replay(judged, found, rounds=rounds)
    return {
        "problems": len(judged), "rounds": rounds, "contenders": found,
        "lorid": {rule: ours(judged, rule=rule, rounds=rounds) for rule in ("paper", "bayes")},
        "bayes_over_tau": [over_tau(judged, tau, rounds=rounds) for tau in TAUS],
    }  # fmt: skip


TAUS = (0.7, 0.8, 0.9, 0.95, 0.98, 0.99)


def over_tau(judged: Sequence[JudgedAttempts], tau: float, *, rounds: int) -> dict[str, Any]:
    """`bayes` with another posterior to stop at."""
    *_, last = figures_by_bound(judged, policy=Policy(rule="bayes", max_rounds=rounds, tau=tau))
    return {
        "tau": tau, "accuracy": last.accuracy,
        "generations_a_question": round(last.mean_generations, 2),
    }  # fmt: skip


def require_equal_to_replay(
    judged: Sequence[JudgedAttempts], found: Sequence[dict[str, Any]], *, rounds: int
) -> None:
    """The majority of both sides here is lorid's own rule `majority`, written twice."""
    theirs = {
        one["most_answers"]: one["accuracy"]
        for one in found
        if (one["rule"], one["stream"]) == ("majority", "both sides")
    }
    for bound in range(1, rounds + 1):
        *_, last = figures_by_bound(judged, policy=Policy(rule="majority", max_rounds=bound))
        assert last.accuracy == theirs[2 * bound], bound


def draw_plot(figures: dict[str, Any]) -> str:
    """Accuracy over the mean generations a question: the frontier of each family."""
    whole = {"intuitive": figures["rounds"], "both sides": 2 * figures["rounds"]}

    def points(rule: str, stream: str, *, every: bool) -> list[tuple[float, float]]:
        return sorted(
            (one["generations_a_question"], one["accuracy"])
            for one in figures["contenders"]
            if one["rule"].startswith(rule)
            and one["stream"] == stream
            and (every or one["most_answers"] == whole[stream])
        )

    bayes = sorted(
        (one["generations_a_question"], one["accuracy"]) for one in figures["bayes_over_tau"]
    )
    paper = [(one["generations_a_question"], one["accuracy"]) for one in figures["lorid"]["paper"]]
    both = "both sides"
    series = [
        Series(name="bayes, tau 0.7 to 0.99", points=bayes, look=0),
        Series(name="paper, N 1 to 20", points=paper, look=1),
        Series(name="majority, both sides", points=points("majority", both, every=True), look=2),
        Series(name="ESC, both sides, w 2 to 8", points=points("ESC", both, every=False), look=3),
        Series(
            name="Adaptive, both sides",
            points=points("Adaptive-Consistency, Beta", both, every=True),
            look=4,
        ),
        Series(
            name="majority, intuitive",
            points=points("majority", "intuitive", every=True),
            look=5,
        ),
        Series(
            name="Adaptive, intuitive",
            points=points("Adaptive-Consistency, Beta", "intuitive", every=True),
            look=6,
        ),
    ]
    lowest = min(value for one in series for _, value in one.points)
    return line_chart(
        "Accuracy over the mean generations a question, on the same attempts",
        x=Axis(label="generations a question", low=0.9, high=66, is_log=True),
        y=Axis(label="accuracy", low=int(lowest * 20) / 20, high=1.0, is_share=True),
        series=series,
    )
