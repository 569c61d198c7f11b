"""The quality gate: are these rules general knowledge, or do they give the solution away?

    faults = find_faults(rules, problem=problem, limits=GateLimits())
    [fault.name for fault in faults]     # ["number-from-question", "copied-phrase"]

Each rule of the gate has a name, by which what it caught is counted:

| name | refuses |
|---|---|
| too-few-rules, too-many-rules | a number of rules outside the limits |
| short-rule, long-rule | a rule of too few words, or of too many characters |
| near-duplicate | a rule with the content words of an earlier one |
| number-from-question | a number of the question |
| name-from-question | a name of the question |
| final-answer | the gold answer, or a number equal to it |
| copied-phrase | several words in a row from the question |
| step-not-covered | an operation of the rationale that no rule speaks of (off by default) |

It judges words, not truth: a rule that is general and wrong passes. How the limits were measured is
in docs/teach.md.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from lorid.method.answer_kinds import Quantity, Word
from lorid.method.mentions import (
    Number,
    capitalised_in,
    names_in,
    numbers_in,
    stem,
    words_in,
)
from lorid.method.problems import MAX_TEXT_CHARS, Problem
from lorid.method.reading import read_answer
from lorid.method.vocabulary import (
    CONSTANTS,
    COUNTED_ANYWHERE,
    FILL,
    OPERATIONS,
)

SMALLEST_NUMBER = 10
"""Integers below it are also ordinary words of rules: they count with the thing that they count."""
LARGEST_PLAIN = 2
"""0, 1 and 2 (halves, pairs, squares, "two steps") never count."""
MAX_ANSWER_CHARS = 200


@dataclass(frozen=True, kw_only=True)
class GateLimits:
    """Thresholds of the gate; a number of words of 0 turns `copied_words` off."""

    min_rules: int = 2
    max_rules: int = 5
    min_rule_words: int = 3
    max_rule_chars: int = 400
    near_duplicate: float = 0.9
    copied_words: int = 6
    check_steps: bool = False


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What one rule of the gate caught; `detail` is for people, `name` is counted."""

    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}"


@dataclass(frozen=True, kw_only=True)
class _Case:
    rules: Sequence[str]
    question: str
    problem: Problem
    limits: GateLimits


def find_faults(
    rules: Sequence[str], *, problem: Problem | None, limits: GateLimits
) -> tuple[Fault, ...]:
    """At most one fault per rule of the gate; none means that the knowledge passes.

    Without a problem only number, length and repeats are judged.
    """
    faults = [*_shape(rules, limits), *_repeats(rules, limits)]
    if problem is None or sum(map(len, rules)) > MAX_TEXT_CHARS:
        return tuple(faults)
    # Readers refuse longer questions.
    question = problem.question[:MAX_TEXT_CHARS]
    case = _Case(rules=rules, question=question, problem=problem, limits=limits)
    for name, find in _CHECKS.items():
        detail = find(case)
        if detail is not None:
            faults.append(Fault(name=name, detail=detail[:80]))
    return tuple(faults)


def _shape(rules: Sequence[str], limits: GateLimits) -> Iterator[Fault]:
    if len(rules) < limits.min_rules:
        detail = f"{len(rules)}, at least {limits.min_rules} expected"
        yield Fault(name="too-few-rules", detail=detail)
    if len(rules) > limits.max_rules:
        detail = f"{len(rules)}, at most {limits.max_rules} expected"
        yield Fault(name="too-many-rules", detail=detail)
    longest = max(map(len, rules), default=0)
    if longest > limits.max_rule_chars:
        detail = f"{longest} characters, at most {limits.max_rule_chars} expected"
        yield Fault(name="long-rule", detail=detail)
    for rule in rules:
        # Bounded before it is split: a rule may be a megabyte.
        if len(rule[:1000].split()) < limits.min_rule_words:
            yield Fault(name="short-rule", detail=repr(rule[:60]))
            return


def _repeats(rules: Sequence[str], limits: GateLimits) -> Iterator[Fault]:
    seen: list[frozenset[str]] = []
    for rule in rules[: 4 * limits.max_rules]:
        content = frozenset(
            stem(word) for word in words_in(rule[: 2 * limits.max_rule_chars]) if word not in FILL
        )
        for earlier in seen:
            shared = len(content & earlier) / max(1, len(content | earlier))
            if content and shared >= limits.near_duplicate:
                yield Fault(name="near-duplicate", detail=repr(rule[:60]))
                return
        seen.append(content)


# Numbers ------------------------------------------------------------------------------------------


def _number_from_question(case: _Case) -> str | None:
    asked = list(numbers_in(case.question))
    values = {one.value for one in asked}
    counted = {(one.value, one.counted) for one in asked}
    for rule in case.rules:
        for one in numbers_in(rule):
            if one.value in values and _is_telling(one, rule=rule, counted=counted):
                return one.text
    return None


def _is_telling(one: Number, *, rule: str, counted: set[tuple[Fraction, str]]) -> bool:
    """Whether a number that two texts share was taken over, rather than met by chance."""
    if abs(one.value) <= LARGEST_PLAIN and one.value.denominator <= LARGEST_PLAIN:
        return False
    if one.is_symbolic or _is_constant(one.value, rule):
        return False
    is_small_integer = one.value.denominator == 1 and abs(one.value) < SMALLEST_NUMBER
    if not is_small_integer:
        return True
    return one.counted not in COUNTED_ANYWHERE and (one.value, one.counted) in counted


def _is_constant(value: Fraction, rule: str) -> bool:
    """Whether a rule speaks of what the number is a constant of: 60 of minutes, 100 of percent."""
    topics = CONSTANTS.get(value)
    return topics is not None and topics.search(rule) is not None


def _final_answer(case: _Case) -> str | None:
    text = case.problem.answer.strip()
    if not text or len(text) > MAX_ANSWER_CHARS:
        return None
    answer = read_answer(text)
    if isinstance(answer, Quantity):
        return _stated_number(answer.value, case.rules)
    return _stated_text(text, case.rules, is_word=isinstance(answer, Word))


def _stated_number(value: Fraction, rules: Sequence[str]) -> str | None:
    for rule in rules:
        for one in numbers_in(rule):
            if one.value != value or one.is_symbolic:
                continue
            # A small number is one of the rule's own words, unless it is said to be the answer.
            said = re.search(rf"{_SAID}\$?{re.escape(one.text)}(?![\w.]\w)", rule, re.IGNORECASE)
            is_result = said is not None and (said["answer"] or not _is_constant(value, rule))
            if is_result or _is_telling(one, rule=rule, counted=set()):
                return one.text
    return None


def _stated_text(text: str, rules: Sequence[str], *, is_word: bool) -> str | None:
    squeezed = _squeezed(text)
    for rule in rules:
        if is_word:
            # "even" or "square" may stand in any rule: only "the answer is even" gives it away.
            found = re.search(rf"{_SAID}{re.escape(text)}\b", rule, re.IGNORECASE) is not None
        else:
            found = len(squeezed) >= 3 and squeezed in _squeezed(rule)
        if found:
            return text
    return None


def _squeezed(text: str) -> str:
    return re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"[\s$]|\\left|\\right|\\[,;! ]", "", text))


# Names and phrases --------------------------------------------------------------------------------


def _name_from_question(case: _Case) -> str | None:
    names = names_in(case.question)
    if not names:
        return None
    for rule in case.rules:
        for one in capitalised_in(rule):
            if one.word.casefold() in names:
                return one.word
    return None


def _copied_phrase(case: _Case) -> str | None:
    size = case.limits.copied_words
    if size < 1:
        return None
    asked = words_in(case.question)
    phrases = {asked[i : i + size] for i in range(len(asked) - size + 1)}
    for rule in case.rules:
        words = words_in(rule)
        for i in range(len(words) - size + 1):
            phrase = words[i : i + size]
            if phrase in phrases and sum(word not in FILL for word in phrase) >= MIN_CONTENT_WORDS:
                return " ".join(phrase)
    return None


# Steps --------------------------------------------------------------------------------------------


def _step_not_covered(case: _Case) -> str | None:
    if not case.limits.check_steps:
        return None
    text = " ".join(case.rules)
    for operation, (sign, words) in OPERATIONS.items():
        if sign.search(case.problem.rationale) and not words.search(text):
            return operation
    return None


_CHECKS: dict[str, Callable[[_Case], str | None]] = {
    "number-from-question": _number_from_question,
    "name-from-question": _name_from_question,
    "final-answer": _final_answer,
    "copied-phrase": _copied_phrase,
    "step-not-covered": _step_not_covered,
}
GATE_RULES = (
    "too-few-rules", "too-many-rules", "short-rule", "long-rule", "near-duplicate", *_CHECKS,
)  # fmt: skip

MIN_CONTENT_WORDS = 2
_SAID = (
    r"(?:(?P<answer>\banswer\b)|\bresult\b|\btotal is\b|\bequals\b|=)"
    r"\s{0,3}(?:is|are|of|:|=|equals|will be)?\s{0,3}"
)
