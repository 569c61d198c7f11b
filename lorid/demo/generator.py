"""The demo's problem generator: word problems as chains of small steps, with their general rules.

A *family* is a chain of step names, such as ``groups > give > sell``. Each step knows several
wordings, the rationale lines it adds and the general rules it rests on, so a problem's gold
rationale, answer and knowledge come with it. `TRAIN_FAMILIES` appear in both splits;
`HELD_OUT_FAMILIES` combine known steps in ways that only the test split shows.

    problems = generate(split="train", count=1200, seed=1)

Splits never share a question: a question belongs to the split that its hash says.
"""

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lorid.method.problems import EnrichedProblem, Problem, content_id

NAMES = [
    "Mia",
    "Tom",
    "Ana",
    "Ben",
    "Zoe",
    "Leo",
    "Eva",
    "Max",
    "Ida",
    "Sam",
    "Lea",
    "Jon",
    "Amy",
    "Kai",
    "Noa",
    "Dan",
    "Ivy",
    "Ali",
    "Una",
    "Raj",
]
NOUNS = [
    "pencils",
    "apples",
    "stickers",
    "cookies",
    "marbles",
    "books",
    "eggs",
    "cards",
    "shells",
    "buttons",
    "stamps",
    "flowers",
    "candles",
    "beads",
    "oranges",
    "cups",
    "toys",
    "coins",
]
CONTAINERS = ["box", "bag", "jar", "tray", "crate", "basket"]
FRACTION_WORDS = {2: "half", 3: "a third", 4: "a quarter", 5: "a fifth"}
TIMES_WORDS = {2: "twice", 3: "three times", 4: "four times"}
PERCENTAGES = (5, 10, 20, 25, 40, 50)
MAX_VALUE = 200


@dataclass(frozen=True, kw_only=True)
class State:
    """The story so far: what is counted now, and the text that led there."""

    name: str
    friend: str
    noun: str
    container: str
    value: int = 0
    unit: str = "things"
    sentences: tuple[str, ...] = ()
    rationale: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    ask: str = ""


class NotDrawn(Exception):
    """The numbers drawn so far do not suit the next step; draw again."""


Step = Callable[[random.Random, State], State]
STEPS: dict[str, Step] = {}

RULE_GROUPS = (
    "To find a total in equal groups, multiply the number of groups by the size of a group."
)
RULE_RATE = "To find an amount made at a steady rate, multiply the rate by the time."
RULE_PARTS = "To find the whole, add all of its parts."
RULE_MORE = "To find an amount that is larger by a difference, add the difference."
RULE_FEWER = "To find an amount that is smaller by a difference, subtract the difference."
RULE_TIMES = "To find a multiple of an amount, multiply the amount by how many times it is taken."
RULE_LEFT = "To find what is left, subtract what was taken away from what was there."
RULE_GAIN = "To find the new amount after a gain, add the gain to the old amount."
RULE_FRACTION = "To find a unit fraction of an amount, divide the amount by the denominator."
RULE_PERCENT = "To find a percentage of an amount, multiply by the percentage and divide by 100."
RULE_SHARE = "To find one equal share, divide the amount by the number of shares."
RULE_PACK = "To find how many full groups there are, divide the amount by the size of a group."
RULE_PRICE = "To find the money earned, multiply the number of items sold by the price of one."
RULE_MONEY_LEFT = "To find the money left, subtract the money spent from the money held."
RULE_USE = "To find an amount used over several days, multiply the daily use by the days."


def step(function: Step) -> Step:
    """Register a step under its function's name."""
    STEPS[function.__name__] = function
    return function


def _advance(
    state: State,
    rng: random.Random,
    *,
    wordings: Sequence[str],
    lines: Sequence[str],
    rules: Sequence[str],
    value: int,
    ask: str,
    unit: str | None = None,
) -> State:
    if not 1 <= value <= MAX_VALUE:
        raise NotDrawn
    new_rules = tuple(rule for rule in rules if rule not in state.rules)
    return replace(
        state,
        value=value,
        unit=unit or state.unit,
        sentences=(*state.sentences, rng.choice(wordings)),
        rationale=(*state.rationale, *lines),
        rules=(*state.rules, *new_rules),
        ask=ask,
    )


def _require(state: State, *, unit: str, divisor: int = 1) -> int:
    if state.unit != unit or state.value % divisor or (divisor > 1 and state.value < 2 * divisor):
        raise NotDrawn
    return state.value


def _divisor(rng: random.Random, value: int, *, low: int = 2, high: int = 9) -> int:
    choices = [d for d in range(low, high + 1) if value % d == 0 and value >= 2 * d]
    if not choices:
        raise NotDrawn
    return rng.choice(choices)


# Openers: they start a story. --------------------------------------------------------------------


@step
def start(rng: random.Random, s: State) -> State:
    a = rng.randint(20, 120)
    wordings = (f"{s.name} has {a} {s.noun}.", f"There are {a} {s.noun} on {s.name}'s table.")
    return _advance(s, rng, wordings=wordings, lines=(), rules=(), value=a, ask="")


@step
def groups(rng: random.Random, s: State) -> State:
    n, m = rng.randint(3, 9), rng.randint(4, 15)
    wordings = (
        f"{s.name} buys {n} {s.container} sets with {m} {s.noun} in each set.",
        f"There are {m} {s.noun} in each {s.container}, and {s.name} has {n} of them.",
    )
    line = f"{s.name} has {n} * {m} = {n * m} {s.noun}."
    ask = f"How many {s.noun} does {s.name} have?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_GROUPS,), value=n * m, ask=ask
    )


@step
def rate(rng: random.Random, s: State) -> State:
    n, m = rng.randint(2, 8), rng.randint(6, 20)
    wordings = (
        f"{s.name} makes {m} {s.noun} every hour and works for {n} hours.",
        f"Working for {n} hours, {s.name} makes {m} {s.noun} an hour.",
        f"A machine gives {s.name} {m} {s.noun} each hour. It runs for {n} hours.",
    )
    line = f"In {n} hours there are {m} * {n} = {n * m} {s.noun}."
    ask = f"How many {s.noun} does {s.name} have?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_RATE,), value=n * m, ask=ask
    )


@step
def parts(rng: random.Random, s: State) -> State:
    a, b = rng.randint(12, 90), rng.randint(12, 90)
    wordings = (
        f"{s.name} has {a} red {s.noun} and {b} blue {s.noun}.",
        f"{s.name} puts {a} old {s.noun} and {b} new {s.noun} together.",
        f"On Monday {s.name} gets {a} {s.noun}, and on Tuesday {b} {s.noun}.",
    )
    line = f"Together there are {a} + {b} = {a + b} {s.noun}."
    ask = f"How many {s.noun} does {s.name} have?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_PARTS,), value=a + b, ask=ask
    )


def _compared(
    rng: random.Random, s: State, *, wordings: Sequence[str], line: str, a: int, b: int, rule: str
) -> State:
    lines = (line, f"Together they have {a} + {b} = {a + b} {s.noun}.")
    together = f" They put all of their {s.noun} together for {s.name}."
    return _advance(
        s,
        rng,
        wordings=[wording + together for wording in wordings],
        lines=lines,
        rules=(rule, RULE_PARTS),
        value=a + b,
        ask=f"How many {s.noun} do they have together?",
    )


@step
def more(rng: random.Random, s: State) -> State:
    a, d = rng.randint(12, 70), rng.randint(5, 50)
    wordings = (
        f"{s.name} has {a} {s.noun}. {s.friend} has {d} more than {s.name}.",
        f"{s.friend} has {d} more {s.noun} than {s.name}, who has {a}.",
    )
    line = f"{s.friend} has {a} + {d} = {a + d} {s.noun}."
    return _compared(rng, s, wordings=wordings, line=line, a=a, b=a + d, rule=RULE_MORE)


@step
def fewer(rng: random.Random, s: State) -> State:
    a = rng.randint(25, 90)
    d = rng.randint(5, a - 10)
    wordings = (
        f"{s.name} has {a} {s.noun}. {s.friend} has {d} fewer than {s.name}.",
        f"{s.friend} has {d} fewer {s.noun} than {s.name}, who has {a}.",
    )
    line = f"{s.friend} has {a} - {d} = {a - d} {s.noun}."
    return _compared(rng, s, wordings=wordings, line=line, a=a, b=a - d, rule=RULE_FEWER)


@step
def times(rng: random.Random, s: State) -> State:
    a, k = rng.randint(6, 40), rng.choice((2, 3, 4))
    wordings = (
        f"{s.name} has {a} {s.noun}. {s.friend} has {TIMES_WORDS[k]} as many.",
        f"{s.friend} has {TIMES_WORDS[k]} as many {s.noun} as {s.name}, who has {a}.",
    )
    line = f"{s.friend} has {a} * {k} = {a * k} {s.noun}."
    return _compared(rng, s, wordings=wordings, line=line, a=a, b=a * k, rule=RULE_TIMES)


# Links: they carry a story on. -------------------------------------------------------------------


@step
def give(rng: random.Random, s: State) -> State:
    v = _require(s, unit="things")
    if v < 12:
        raise NotDrawn
    k = rng.randint(4, v - 4)
    wordings = (
        f"{s.name} gives {k} of them to {s.friend}.",
        f"Then {s.name} loses {k} of the {s.noun}.",
        f"After that, {k} of the {s.noun} are given away.",
    )
    line = f"After that there are {v} - {k} = {v - k} {s.noun} left."
    ask = f"How many {s.noun} are left?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_LEFT,), value=v - k, ask=ask
    )


@step
def find(rng: random.Random, s: State) -> State:
    v, k = _require(s, unit="things"), rng.randint(6, 70)
    wordings = (
        f"{s.name} finds {k} more {s.noun}.",
        f"Then {s.friend} brings {k} more {s.noun}.",
        f"Later {k} more {s.noun} arrive.",
    )
    line = f"Now there are {v} + {k} = {v + k} {s.noun}."
    ask = f"How many {s.noun} are there now?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_GAIN,), value=v + k, ask=ask
    )


@step
def fraction(rng: random.Random, s: State) -> State:
    d = rng.choice(tuple(FRACTION_WORDS))
    v = _require(s, unit="things", divisor=d)
    word, x = FRACTION_WORDS[d], v // d
    wordings = (
        f"{s.name} gives {word} of them to {s.friend}.",
        f"Then {word} of the {s.noun} are lost.",
        f"Of these {s.noun}, {word} are broken and thrown away.",
    )
    lines = (f"That is {v} / {d} = {x} {s.noun}.", f"There are {v} - {x} = {v - x} {s.noun} left.")
    ask = f"How many {s.noun} are left?"
    rules = (RULE_FRACTION, RULE_LEFT)
    return _advance(s, rng, wordings=wordings, lines=lines, rules=rules, value=v - x, ask=ask)


@step
def percent(rng: random.Random, s: State) -> State:
    v, p = _require(s, unit="things"), rng.choice(PERCENTAGES)
    if v * p % 100 or v < 20:
        raise NotDrawn
    x = v * p // 100
    wordings = (
        f"{s.name} finds that {p}% of the {s.noun} are bad and throws them away.",
        f"Then {p}% of them are given to {s.friend}.",
        f"Of the {s.noun}, {p}% get lost.",
    )
    lines = (
        f"That is {v} * {p} / 100 = {x} {s.noun}.",
        f"There are {v} - {x} = {v - x} {s.noun} left.",
    )
    ask = f"How many {s.noun} are left?"
    rules = (RULE_PERCENT, RULE_LEFT)
    return _advance(s, rng, wordings=wordings, lines=lines, rules=rules, value=v - x, ask=ask)


@step
def use(rng: random.Random, s: State) -> State:
    v, k, d = _require(s, unit="things"), rng.randint(3, 14), rng.randint(2, 7)
    if k * d > v - 3:
        raise NotDrawn
    wordings = (
        f"{s.name} uses {k} {s.noun} a day for {d} days.",
        f"For {d} days, {k} of the {s.noun} are used each day.",
    )
    lines = (
        f"In {d} days {k} * {d} = {k * d} {s.noun} are used.",
        f"There are {v} - {k * d} = {v - k * d} {s.noun} left.",
    )
    ask = f"How many {s.noun} are left?"
    rules = (RULE_USE, RULE_LEFT)
    return _advance(s, rng, wordings=wordings, lines=lines, rules=rules, value=v - k * d, ask=ask)


@step
def grow(rng: random.Random, s: State) -> State:
    v, k = _require(s, unit="things"), rng.choice((2, 3, 4))
    wordings = (
        f"A week later {s.name} has {TIMES_WORDS[k]} as many.",
        f"Then the number of {s.noun} grows to {TIMES_WORDS[k]} as many.",
    )
    line = f"Now there are {v} * {k} = {v * k} {s.noun}."
    ask = f"How many {s.noun} are there now?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_TIMES,), value=v * k, ask=ask
    )


@step
def share(rng: random.Random, s: State) -> State:
    v = _require(s, unit="things")
    n = _divisor(rng, v)
    wordings = (
        f"{s.name} shares the {s.noun} equally among {n} friends.",
        f"The {s.noun} are divided equally among {n} children.",
    )
    line = f"Each one gets {v} / {n} = {v // n} {s.noun}."
    ask = f"How many {s.noun} does each one get?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_SHARE,), value=v // n, ask=ask
    )


@step
def pack(rng: random.Random, s: State) -> State:
    v = _require(s, unit="things")
    d = _divisor(rng, v, low=3, high=12)
    wordings = (
        f"{s.name} packs the {s.noun} into packs of {d}.",
        f"The {s.noun} are put into packs that hold {d} each.",
    )
    line = f"There are {v} / {d} = {v // d} packs."
    ask = "How many packs are there?"
    return _advance(
        s,
        rng,
        wordings=wordings,
        lines=(line,),
        rules=(RULE_PACK,),
        value=v // d,
        ask=ask,
        unit="packs",
    )


@step
def sell(rng: random.Random, s: State) -> State:
    what = {"things": "one", "packs": "pack"}.get(s.unit)
    if what is None:
        raise NotDrawn
    v, p = s.value, rng.randint(2, 12)
    wordings = (
        f"{s.name} sells each {what} for ${p}.",
        f"{s.friend} buys all of them and pays ${p} for each {what}.",
        f"Then {s.name} sells them all at ${p} for each {what}.",
    )
    line = f"{s.name} gets {v} * {p} = ${v * p}."
    ask = f"How many dollars does {s.name} get?"
    return _advance(
        s,
        rng,
        wordings=wordings,
        lines=(line,),
        rules=(RULE_PRICE,),
        value=v * p,
        ask=ask,
        unit="dollars",
    )


@step
def spend(rng: random.Random, s: State) -> State:
    v = _require(s, unit="dollars")
    if v < 15:
        raise NotDrawn
    k = rng.randint(5, v - 3)
    wordings = (
        f"{s.name} spends ${k} of the money on lunch.",
        f"{s.name} pays ${k} for a new coat.",
    )
    line = f"{s.name} has {v} - {k} = ${v - k} left."
    ask = f"How many dollars does {s.name} have left?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_MONEY_LEFT,), value=v - k, ask=ask
    )


@step
def split(rng: random.Random, s: State) -> State:
    v = _require(s, unit="dollars")
    n = _divisor(rng, v, high=6)
    wordings = (
        f"{s.name} splits the money equally among {n} people.",
        f"The money is divided equally among {n} people.",
    )
    line = f"Each one gets {v} / {n} = ${v // n}."
    ask = "How many dollars does each one get?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_SHARE,), value=v // n, ask=ask
    )


@step
def save(rng: random.Random, s: State) -> State:
    v, p = _require(s, unit="dollars"), rng.choice(PERCENTAGES)
    if v * p % 100:
        raise NotDrawn
    wordings = (
        f"{s.name} saves {p}% of the money.",
        f"{s.name} puts {p}% of the money into the bank.",
    )
    line = f"{s.name} saves {v} * {p} / 100 = ${v * p // 100}."
    ask = f"How many dollars does {s.name} save?"
    return _advance(
        s, rng, wordings=wordings, lines=(line,), rules=(RULE_PERCENT,), value=v * p // 100, ask=ask
    )


# Families ----------------------------------------------------------------------------------------


def _chains(text: str) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(line.split()) for line in text.strip().splitlines())


TRAIN_FAMILIES = _chains("""
groups give
groups fraction
groups sell
groups use
groups find share
groups pack sell
groups percent
groups give sell
groups sell spend
rate give
rate percent
rate pack
rate sell save
rate fraction sell
rate find give
rate use
parts share
parts grow
parts fraction
parts pack sell
parts sell split
parts give share
parts percent sell
more give
more pack
more sell
fewer find
fewer share
fewer grow
times give
times pack sell
times fraction
start give find
start grow give
start percent find
start sell save spend
start use grow
""")

HELD_OUT_FAMILIES = _chains("""
rate grow give
parts use sell
groups fraction find
rate give share
groups find sell spend
start fraction percent
""")

OPENERS = ("start", "groups", "rate", "parts", "more", "fewer", "times")
LINKS = tuple(name for name in STEPS if name not in OPENERS)

ONE_STEP_FAMILIES = _chains("""
groups
rate
parts
start give
start find
start grow
start share
start pack
start sell
""")


def draw(rng: random.Random, chain: Sequence[str]) -> EnrichedProblem:
    """One problem of a family; draws until the numbers suit every step of the chain."""
    while True:
        problem = try_draw(rng, chain)
        if problem is not None:
            return problem


def draw_composed(rng: random.Random) -> EnrichedProblem:
    """One problem of a random chain of two to four steps that is not held out."""
    while True:
        chain = (rng.choice(OPENERS), *rng.choices(LINKS, k=rng.choice((1, 2, 2, 3))))
        problem = None if chain in HELD_OUT_FAMILIES else try_draw(rng, chain)
        if problem is not None:
            return problem


def try_draw(rng: random.Random, chain: Sequence[str]) -> EnrichedProblem | None:
    """One problem of a family, or None when the numbers drawn do not suit a step."""
    name, friend = rng.sample(NAMES, 2)
    state = State(
        name=name, friend=friend, noun=rng.choice(NOUNS), container=rng.choice(CONTAINERS)
    )
    try:
        for step_name in chain:
            state = STEPS[step_name](rng, state)
    except NotDrawn:
        return None
    question = " ".join((*state.sentences, state.ask))
    rationale = "\n".join(state.rationale)
    problem = Problem(
        problem_id=content_id(question, rationale),
        question=question,
        rationale=rationale,
        answer=str(state.value),
        family=" > ".join(chain),
    )
    return EnrichedProblem(problem=problem, knowledge=state.rules)


def split_of(question: str) -> str:
    """The split that a question belongs to, by its hash: one in eight is "test"."""
    return "test" if hashlib.sha256(question.encode()).digest()[0] < 32 else "train"


def generate(*, split: str, count: int, seed: int) -> list[EnrichedProblem]:
    """`count` different problems of a split, families in turn; the same seed gives the same list.

    The test split takes one problem in six from `HELD_OUT_FAMILIES`.

    Raises:
        ValueError: `split` is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f"split {split!r}: expected 'train' or 'test'")
    rng = random.Random(f"{split}-{seed}")
    chosen: dict[str, EnrichedProblem] = {}
    while len(chosen) < count:
        held_out = split == "test" and len(chosen) % 6 == 5
        families = HELD_OUT_FAMILIES if held_out else TRAIN_FAMILIES
        candidate = draw(rng, families[rng.randrange(len(families))])
        if split_of(candidate.problem.question) == split:
            chosen.setdefault(candidate.problem.question, candidate)
    return list(chosen.values())
