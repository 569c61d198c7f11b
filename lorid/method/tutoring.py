r"""What a tutor says of a submission: where its reasoning departs, and rules that help to go on.

    find_departure(submission, question=question)          # Departure(line=2, ...) or None
    hint_from(knowledge_text, question=question, answers=["72"])
    # ("To find a total, add the amounts of all periods.",)

A hint is made of the knowledge generator's rules, and must not give the answer away. A rule is left
out when it has the answer's number in any form (digits, words, fraction, percentage), two numbers
that make it by one operation, arithmetic that comes to it, or what the quality gate finds to be
taken from the question. What is left may be nothing: then there is no hint.
"""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import permutations

from lorid.method.answer_kinds import Quantity
from lorid.method.answers import extract_answer
from lorid.method.arithmetic import values_of
from lorid.method.departures import Departure, check_rationale
from lorid.method.gate import GateLimits, find_faults
from lorid.method.mentions import numbers_in, words_in
from lorid.method.problems import Problem
from lorid.method.quantities import NUMBER_WORDS, SCALES
from lorid.method.reading import read_answer
from lorid.method.sides import sides_of
from lorid.method.signs import signs_of

MAX_RULES = 5
MAX_RULE_CHARS = 400
MAX_ANSWER_CHARS = 200
MAX_NUMBERS = 12
# Of one rule alone: how many rules there are, and that they differ, is no matter here.
_LIMITS = GateLimits(min_rules=1, max_rule_chars=MAX_RULE_CHARS)
_MARKER = re.compile(r"^\s*(?:[-*\u2022>]|\(?\d{1,2}[.):])\s+")
# "$a * b = a^b + b^a$": the question gives a sign a meaning of its own.
_OWN_OPERATION = re.compile(r"[a-zA-Z]\s*(?:\*|\\ast|\\star|\\cdot|\\times)\s*[a-zA-Z]\)?\s*=")
_SHOWS_WORK = re.compile(r"\n\s*\S|-->|####|\\boxed|<<")
_PART_WORDS = {
    word: Fraction(1, number)
    for number, words in {
        2: "half halves", 3: "third thirds", 4: "quarter quarters fourth fourths",
        5: "fifth fifths", 6: "sixth sixths", 7: "seventh sevenths", 8: "eighth eighths",
        9: "ninth ninths", 10: "tenth tenths", 100: "hundredth hundredths",
    }.items()
    for word in words.split()
}  # fmt: skip
_TIMES_WORDS = {
    "once": 1, "single": 1, "twice": 2, "double": 2, "doubled": 2, "both": 2, "pair": 2,
    "thrice": 3, "triple": 3, "tripled": 3, "quadruple": 4,
}  # fmt: skip


def find_departure(submission: str, *, question: str) -> Departure | None:
    """Where the submission's arithmetic first fails; None too where the question redefines it."""
    if _OWN_OPERATION.search(question):
        return None
    return check_rationale(submission)


def shows_work(submission: str) -> bool:
    """Whether a submission is more than an answer: several lines, or a marked answer."""
    return _SHOWS_WORK.search(submission) is not None


def answer_of(submission: str) -> str:
    """The answer of a submission: all of it, or what its work comes to."""
    if not shows_work(submission):
        return submission
    return extract_answer(submission) or submission


def hint_from(
    knowledge: str, *, question: str, answers: Sequence[str], truncated: bool = False
) -> tuple[str, ...]:
    """The rules of a knowledge text that are no part of the solution; `answers` stay secret.

    `truncated`: the text was cut off, so its last rule is not whole.
    """
    lines = knowledge.splitlines()
    if truncated:
        lines = lines[:-1]
    rules = [_MARKER.sub("", " ".join(line.split()), count=1) for line in lines[: 4 * MAX_RULES]]
    kept = [rule for rule in dict.fromkeys(rules) if rule and len(rule) <= MAX_RULE_CHARS]
    secrets = [answer.strip() for answer in answers if answer.strip()]
    return tuple(rule for rule in kept if _is_harmless(rule, question, secrets))[:MAX_RULES]


def _is_harmless(rule: str, question: str, answers: Sequence[str]) -> bool:
    for answer in answers or [""]:
        problem = Problem(problem_id="", question=question, rationale="", answer=answer)
        if find_faults([rule], problem=problem, limits=_LIMITS) or _tells(rule, answer):
            return False
    return True


def _tells(rule: str, answer: str) -> bool:
    if not answer:
        return False
    secrets = set(_secrets(answer))
    if not secrets:
        return _says(rule, answer)
    numbers = list(dict.fromkeys(_numbers(rule)))
    if len(numbers) > MAX_NUMBERS:
        return True
    if not secrets.isdisjoint(numbers) or not secrets.isdisjoint(_sums(numbers)):
        return True
    return any(
        not secrets.isdisjoint(values_of(side))
        for side in sides_of(signs_of(rule))
        if side.has_operator
    )


def _secrets(answer: str) -> Iterator[Fraction]:
    """The answer's numbers, each also as a percentage and as a share."""
    if len(answer) > MAX_ANSWER_CHARS:
        return
    read = read_answer(answer)
    # The numerator of 3/4 is no secret; of an answer that is no quantity each number is one.
    whole = [read.value] if isinstance(read, Quantity) else list(_numbers(answer))
    for value in whole:
        yield from (value, -value, value * 100, value / 100)


def _numbers(text: str) -> Iterator[Fraction]:
    yield from (one.value for one in numbers_in(text))
    before = Fraction(1)
    for word in words_in(text):
        for piece in word.split("-"):
            if piece in _PART_WORDS:
                yield from (_PART_WORDS[piece], before * _PART_WORDS[piece])
            if piece in _TIMES_WORDS:
                yield Fraction(_TIMES_WORDS[piece])
            if piece in SCALES:
                yield Fraction(SCALES[piece])
            before = _value(piece)


def _value(word: str) -> Fraction:
    if word.isdigit() and len(word) < 10:
        return Fraction(int(word))
    return Fraction(NUMBER_WORDS.get(word, 1))


def _sums(numbers: Sequence[Fraction]) -> Iterator[Fraction]:
    """What any two of the numbers make by one operation."""
    for one, other in permutations(numbers, 2):
        yield from (one + other, one - other, one * other)
        if other:
            yield one / other


def _says(rule: str, answer: str) -> bool:
    """Whether a rule holds an answer of words or letters, as words of its own.

    A single letter, such as "A" of choices, is in many a rule: the gate looks for "answer is A".
    """
    if len(answer) < 2:
        return False
    said, asked = words_in(rule), words_in(answer)
    size = len(asked)
    if size and any(said[at : at + size] == asked for at in range(len(said) - size + 1)):
        return True
    return len(answer) >= 3 and "".join(answer.split()) in "".join(rule.split())
