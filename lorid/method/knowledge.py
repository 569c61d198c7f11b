"""The teacher's prompt, and how its answer becomes knowledge.

The prompt's words are lorid's own; the demands (general rules, nothing taken from the question,
every step covered) and the JSON shape follow the paper. A template file may replace it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Self, cast

from lorid.errors import ConfigError
from lorid.method.gate import Fault, GateLimits, find_faults
from lorid.method.problems import Problem

TEACHER_TEMPLATE = """\
You write down the general knowledge behind a worked solution.
List 2 to 5 rules that hold for any problem of this kind. No names, no numbers and no phrases \
from the question. Together the rules cover every step of the solution.
Answer with JSON only: {{"output": ["rule", "rule"]}}

Question: {question}

Solution: {rationale}
"""

MAX_ANSWER_CHARS = 1_000_000
MAX_STARTS = 200
# A JSON object begins like this; braces of LaTeX do not.
_OBJECT = re.compile(r'\{\s*["}]')
# JSON's own escapes that no LaTeX command is mistaken for; other backslashes are doubled.
_ESCAPE = re.compile(r'\\(u[0-9a-fA-F]{4}|["\\/]|n(?![a-z]))|\\')
# What `\f` of `\frac` and `\b` of `\binom` become when a teacher writes LaTeX as if JSON had none.
_LOST_LATEX = re.compile(r"[\x08\x0c]|[\t\r](?=[a-z])")


@dataclass(frozen=True, kw_only=True)
class ParsedKnowledge:
    """Rules, or the faults for which there are none; exactly one of the two is empty.

    `num_repeats` counts rules that were left out because they repeat another one word for word.
    """

    rules: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    num_repeats: int = 0

    @classmethod
    def refused(cls, name: str, detail: str) -> Self:
        """No knowledge for one reason, such as an answer that was cut off."""
        return cls(faults=(Fault(name=name, detail=detail[:80]),))

    @property
    def rejected_because(self) -> str | None:
        """The first fault as `name: detail`."""
        return str(self.faults[0]) if self.faults else None


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


def parse_knowledge(
    text: str, *, problem: Problem | None = None, limits: GateLimits | None = None
) -> ParsedKnowledge:
    """Rules from the teacher's text: a JSON object with a list of strings under `output`.

    Prose and fences around it are passed over. With `problem` the gate looks for what the rules
    took from it. Names of faults are those of the gate and `not-json`, `wrong-shape`, `no-rules`.
    """
    payload = _payload(text)
    if payload is None:
        return ParsedKnowledge.refused("not-json", "no JSON object in the answer")
    if "output" not in payload:
        return ParsedKnowledge.refused("wrong-shape", f"no 'output' but {sorted(payload)[:3]}")
    output = payload["output"]
    listed = cast("list[object]", output) if isinstance(output, list) else [None]
    texts = [rule for rule in listed if isinstance(rule, str)]
    if len(texts) < len(listed):
        return ParsedKnowledge.refused("wrong-shape", "'output' is not a list of strings")
    written = [" ".join(rule.split()) for rule in texts if rule.strip()]
    rules = tuple({rule.casefold().rstrip("."): rule for rule in reversed(written)}.values())[::-1]
    if not rules:
        return ParsedKnowledge.refused("no-rules", "the list is empty")
    num_repeats = len(written) - len(rules)
    faults = find_faults(rules, problem=problem, limits=limits or GateLimits())
    if faults:
        return ParsedKnowledge(faults=faults, num_repeats=num_repeats)
    return ParsedKnowledge(rules=rules, num_repeats=num_repeats)


def _payload(text: str) -> dict[str, object] | None:
    """The object that the text holds, with LaTeX in it kept: `"\\frac"` and `"\frac"` alike."""
    text = text[:MAX_ANSWER_CHARS]
    found = _first_object(text)
    if found is None or _LOST_LATEX.search("".join(_strings(found.get("output")))):
        found = _first_object(_ESCAPE.sub(_escaped, text)) or found
    return found


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield from (item for item in cast("list[object]", value) if isinstance(item, str))


def _escaped(found: re.Match[str]) -> str:
    return found[0] if found[1] else "\\\\"


def _first_object(text: str) -> dict[str, object] | None:
    """The first object with `output`, else the first object."""
    first: dict[str, object] | None = None
    decoder = json.JSONDecoder()
    position = 0
    for match in islice(_OBJECT.finditer(text), MAX_STARTS):
        if match.start() < position:
            continue
        try:
            value, position = decoder.raw_decode(text, match.start())
            # Half of a surrogate pair is no text: no file takes it.
            json.dumps(value, ensure_ascii=False).encode()
        except (ValueError, RecursionError):  # numbers of thousands of digits are a ValueError
            continue
        found = cast("dict[str, object]", value)
        if "output" in found:
            return found
        first = first or found
    return first
