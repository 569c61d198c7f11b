"""The buckets of the disagreement explorer, and what the gate says of the student's knowledge.

    names = buckets_of(item, score, has_bad_knowledge=False)     # ("deep only", "never agreed")

The first four compare the two sides at equal terms, each by its *first* attempt, so that "both
right" and "intuitive only" together are what the intuitive reasoner alone gets right. The next two
are how the rule ended. A question may be in several.
"""

from collections.abc import Mapping, Sequence

from lorid.method.attempts import JudgedAttempts, ProblemAttempts
from lorid.method.gate import GateLimits, find_faults
from lorid.method.problems import Problem
from lorid.method.replay import ProblemScore
from lorid.method.stopping import Outcome

BOTH_RIGHT = "both right"
INTUITIVE_ONLY = "intuitive only"
DEEP_ONLY = "deep only"
NEITHER_RIGHT = "neither right"
AGREED_WRONG = "agreed but wrong"
NEVER_AGREED = "never agreed"
BAD_KNOWLEDGE = "bad knowledge"
BUCKETS: Mapping[str, str] = {
    BOTH_RIGHT: "in the first round both sides give the label's answer",
    INTUITIVE_ONLY: "in the first round the intuitive side alone gives it",
    DEEP_ONLY: "in the first round the deep side alone gives it",
    NEITHER_RIGHT: "in the first round neither side gives it",
    AGREED_WRONG: "the rule agreed on an answer that is not the label",
    NEVER_AGREED: "the rule used up its rounds, or no attempt gave an answer",
    BAD_KNOWLEDGE: (
        "in a round that the rule used, the student wrote knowledge that the quality gate of the "
        "teacher would have refused, and the deep attempt that read it is not right"
    ),
}
CUT_OFF = "cut-off"
KnowledgeFaults = Sequence[tuple[str, ...]]
"""Per round, the names of what the gate refuses in that round's knowledge."""


def knowledge_faults(item: ProblemAttempts, *, limits: GateLimits) -> KnowledgeFaults:
    """What the teacher's gate says of the student's own knowledge, round by round."""
    problem = Problem(
        problem_id=item.problem_id, question=item.question, rationale="", answer=item.gold or ""
    )
    known: dict[str, tuple[str, ...]] = {}
    found: list[tuple[str, ...]] = []
    for sampled in item.knowledge:
        if sampled.text not in known:
            rules = [line.strip() for line in sampled.text.split("\n") if line.strip()]
            faults = find_faults(rules, problem=problem, limits=limits)
            known[sampled.text] = tuple(fault.name for fault in faults)
        found.append((CUT_OFF,) * sampled.truncated + known[sampled.text])
    return found


def has_bad_knowledge(item: JudgedAttempts, *, faults: KnowledgeFaults, num_rounds: int) -> bool:
    """Whether the gate refuses a knowledge whose deep attempt is not right, in the rounds used.

    Without a label every refused knowledge counts.
    """
    pairs = zip(faults, item.deep, strict=False)
    return any(
        names and item.is_right(answer) is not True for names, answer in list(pairs)[:num_rounds]
    )


def buckets_of(
    item: JudgedAttempts, score: ProblemScore, *, has_bad_knowledge: bool
) -> tuple[str, ...]:
    """The names of a question's buckets, in the order of BUCKETS."""
    names: list[str] = []
    if item.right is not None:
        intuitive = bool(item.intuitive) and item.is_right(item.intuitive[0]) is True
        deep = item.is_first_deep_right is True
        names.append(
            {
                (True, True): BOTH_RIGHT,
                (True, False): INTUITIVE_ONLY,
                (False, True): DEEP_ONLY,
                (False, False): NEITHER_RIGHT,
            }[intuitive, deep]
        )
    if score.outcome is Outcome.AGREED and score.correct is False:
        names.append(AGREED_WRONG)
    if score.outcome is not Outcome.AGREED:
        names.append(NEVER_AGREED)
    if has_bad_knowledge:
        names.append(BAD_KNOWLEDGE)
    return tuple(names)
