"""The three roles and the exact prompt and target text of each (arXiv 2508.13037).

The strings are interface facts: the published adapters answer to exactly these, so trailing spaces
count. How text becomes token ids, per base family, is in `lorid.method.templates`.
"""

from collections.abc import Sequence
from enum import StrEnum

from lorid.method.problems import EnrichedProblem, Problem


class Role(StrEnum):
    """One of the three things an adapter learns."""

    INTUITIVE_REASONER = "intuitive_reasoner"
    KNOWLEDGE_GENERATOR = "knowledge_generator"
    DEEP_REASONER = "deep_reasoner"

    @property
    def short(self) -> str:
        """IR, KG or DR; for tables only."""
        return {"intuitive_reasoner": "IR", "knowledge_generator": "KG", "deep_reasoner": "DR"}[
            self
        ]


INSTRUCTIONS = {
    Role.INTUITIVE_REASONER: "Please answer this MATH question step by step.",
    Role.KNOWLEDGE_GENERATOR: (
        "Please output knowledge needed to solve the MATH question step by step."
    ),
    Role.DEEP_REASONER: (
        "Please reason step by step based on the given MATH question and knowledge, "
        "and output the final answer."
    ),
}


def join_knowledge(rules: Sequence[str]) -> str:
    """Rules as one text, one rule a line."""
    return "\n".join(rules)


def user_turn(role: Role, *, question: str, knowledge: str | None = None) -> str:
    """Text of the user's turn: instruction, newline, input.

    Raises:
        ValueError: knowledge is missing for the deep reasoner, or given to another role.
    """
    if (knowledge is not None) != (role is Role.DEEP_REASONER):
        raise ValueError(f"{role}: knowledge is for the deep reasoner, and it needs it")
    body = {
        Role.INTUITIVE_REASONER: question,
        Role.KNOWLEDGE_GENERATOR: f"Question: {question}\n\nKnowledge: ",
        Role.DEEP_REASONER: f"Question: {question}\n\nKnowledge: {knowledge}\n\nRationale: ",
    }[role]
    return f"{INSTRUCTIONS[role]}\n{body}"


def solution_target(problem: Problem) -> str:
    """What a reasoner learns to write for a problem."""
    if problem.style == "math":
        return problem.rationale
    return f"{problem.rationale}\n--> {problem.answer} END"


def role_target(role: Role, problem: EnrichedProblem) -> str:
    """What `role` learns to write for an enriched problem."""
    if role is Role.KNOWLEDGE_GENERATOR:
        return join_knowledge(problem.knowledge)
    return solution_target(problem.problem)
