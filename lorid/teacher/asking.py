"""One problem's questions to the teacher: ask, judge, ask again differently, or set aside.

    outcome = await ask_problem(problem, respond=window.respond, manner=manner)
    outcome.rules, outcome.reason       # one of the two

Text that cannot be used is asked for again with another seed, warmer, and (where the teacher can
read it) a note that says what was wrong. All of it depends on the config and on earlier responses
alone, so a rerun asks for the same and finds it in the ledger.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from lorid.method.gate import GateLimits
from lorid.method.knowledge import ParsedKnowledge, parse_knowledge, teacher_prompt
from lorid.method.problems import Problem
from lorid.teacher.base import Reply, TeacherRequest
from lorid.teacher.failures import Failed
from lorid.teacher.ledger import Stored

WARMER = 0.3
MAX_TEMPERATURE = 1.5
CUT_OFF, REFUSED = "cut-off", "refused"
NOTE = """
An earlier answer to this could not be used: {reason}.
Write it anew so that this does not happen: {advice}
"""
_ADVICE = {
    CUT_OFF: "fewer and shorter rules, one sentence each, and nothing before or after the JSON.",
    REFUSED: "these are school problems; only their general rules are asked for.",
}
ADVICE = "general rules only, as JSON of the given shape and nothing else."
THOUGHT_START, THOUGHT_END = "<think>", "</think>"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How problems are put to the teacher."""

    template: str
    temperature: float
    seed: int
    max_asks: int
    gate: GateLimits | None = None
    explains: bool = True


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Rules, or why there are none, and what it took: asks, and tokens written in all of them.

    `caught` names what was wrong with each answer that was refused, every fault of it.
    """

    rules: tuple[str, ...]
    reason: str | None
    num_asks: int
    num_tokens: int
    caught: tuple[str, ...] = ()

    def to_row(self) -> dict[str, Any]:
        """Plain values, for Arrow."""
        return {
            "rules": list(self.rules),
            "reason": self.reason,
            "num_asks": self.num_asks,
            "num_tokens": self.num_tokens,
            "caught": list(self.caught),
        }


async def ask_problem(
    problem: Problem,
    *,
    respond: Callable[[TeacherRequest], Awaitable[Stored]],
    manner: Manner,
) -> Outcome:
    """Knowledge for one problem, after `manner.max_asks` requests at most.

    Raises:
        LoridError: the stage stops.
    """
    judged, num_tokens, ask = ParsedKnowledge.refused("not-asked", ""), 0, 0
    caught: list[str] = []
    for ask in range(1, manner.max_asks + 1):
        request = request_for(problem, manner=manner, ask=ask, reason=judged.rejected_because)
        try:
            stored = await respond(request)
        except Failed as failed:
            # Others are served: this one alone is set aside, and --retry-rejects comes back to it.
            judged = ParsedKnowledge.refused("no-response", str(failed))
            break
        num_tokens += stored.reply.usage.output_tokens
        judged = judge(stored.reply, problem=problem, gate=manner.gate)
        caught += [fault.name for fault in judged.faults]
        if judged.rejected_because is None:
            break
    return Outcome(
        rules=judged.rules,
        reason=judged.rejected_because,
        num_asks=ask,
        num_tokens=num_tokens,
        caught=tuple(caught),
    )


def request_for(
    problem: Problem, *, manner: Manner, ask: int, reason: str | None = None
) -> TeacherRequest:
    """The request of that number; from the second on `reason` says what was wrong before."""
    prompt = teacher_prompt(problem, template=manner.template)
    if ask > 1 and reason is not None and manner.explains:
        prompt += NOTE.format(reason=reason, advice=_ADVICE.get(reason.split(":")[0], ADVICE))
    warmth = min(WARMER * (ask - 1), max(0.0, MAX_TEMPERATURE - manner.temperature))
    return TeacherRequest(
        prompt=prompt,
        temperature=round(manner.temperature + warmth, 3),
        seed=manner.seed + ask - 1,
        ask=ask,
    )


def judge(reply: Reply, *, problem: Problem, gate: GateLimits | None) -> ParsedKnowledge:
    """Rules from a reply, or why it cannot be used."""
    if reply.finish_reason == "refusal":
        return ParsedKnowledge.refused(REFUSED, "by the teacher")
    if reply.finish_reason == "length":
        return ParsedKnowledge.refused(CUT_OFF, "at the token limit")
    text = without_thoughts(reply.text)
    if not text:
        return ParsedKnowledge.refused("empty", "the answer has no text")
    return parse_knowledge(text, problem=problem, limits=gate)


def without_thoughts(text: str) -> str:
    """The answer alone: what a model thought aloud before it may hold braces and numbers."""
    _, closed, after = text.rpartition(THOUGHT_END)
    if closed:
        return after.strip()
    return "" if text.lstrip().startswith(THOUGHT_START) else text.strip()
