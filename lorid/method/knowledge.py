"""The teacher's prompt, and how its answer becomes knowledge.

The prompt's words are lorid's own; the demands (general rules, nothing taken from the question,
every step covered) and the JSON shape follow the paper. A template file may replace it.
"""

import json
import re
from dataclasses import dataclass
from typing import cast

from lorid.errors import ConfigError
from lorid.method.problems import Problem

TEACHER_TEMPLATE = """\
You write down the general knowledge behind a worked solution.
List 2 to 5 rules that hold for any problem of this kind. No names, no numbers and no phrases \
from the question. Together the rules cover every step of the solution.
Answer with JSON only: {{"output": ["rule", "rule"]}}

Question: {question}

Solution: {rationale}
"""

MAX_RULES = 12
MAX_RULE_CHARS = 400
_OBJECT = re.compile(r"\{")


@dataclass(frozen=True, kw_only=True)
class ParsedKnowledge:
    """Rules, or the reason why there are none; exactly one of the two is set."""

    rules: tuple[str, ...] = ()
    rejected_because: str | None = None


def teacher_prompt(problem: Problem, *, template: str = TEACHER_TEMPLATE) -> str:
    """Text of the teacher's user turn.

    Raises:
        ConfigError: the template has a placeholder other than {question} and {rationale}.
    """
    try:
        return template.format(question=problem.question, rationale=problem.rationale)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"teacher template: {error}; only {{question}} and {{rationale}} may be used, "
            "and a literal brace is written twice"
        ) from error


def parse_knowledge(text: str, *, problem: Problem | None = None) -> ParsedKnowledge:
    """Rules from the teacher's text: a JSON object with a list of strings under `output`.

    With `problem`, rules that hold one of the question's numbers are refused as not general.
    """
    payload = _first_object(text)
    if payload is None:
        return ParsedKnowledge(rejected_because="no JSON object in the answer")
    output = payload.get("output")
    listed = cast("list[object]", output) if isinstance(output, list) else [None]
    texts = [rule for rule in listed if isinstance(rule, str)]
    if len(texts) < len(listed):
        return ParsedKnowledge(rejected_because="'output' is not a list of strings")
    rules = tuple(dict.fromkeys(" ".join(rule.split()) for rule in texts if rule.strip()))
    reason = _gate(rules, problem)
    return ParsedKnowledge(rejected_because=reason) if reason else ParsedKnowledge(rules=rules)


def _first_object(text: str) -> dict[str, object] | None:
    decoder = json.JSONDecoder()
    for match in list(_OBJECT.finditer(text))[:20]:
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):  # numbers of thousands of digits are a ValueError
            continue
        if isinstance(value, dict):
            return cast("dict[str, object]", value)
    return None


def _gate(rules: tuple[str, ...], problem: Problem | None) -> str | None:
    if not rules:
        return "no rules"
    if len(rules) > MAX_RULES:
        return f"{len(rules)} rules, at most {MAX_RULES} expected"
    if any(len(rule) > MAX_RULE_CHARS for rule in rules):
        return f"a rule longer than {MAX_RULE_CHARS} characters"
    if problem is not None:
        # 100 belongs to general rules about percentages; small numbers to "half" and the like.
        numbers = {n for n in re.findall(r"\d+", problem.question) if len(n) > 1 and n != "100"}
        copied = numbers & set(re.findall(r"\d+", " ".join(rules)))
        if copied:
            return f"a number of the question: {min(copied)}"
    return None
