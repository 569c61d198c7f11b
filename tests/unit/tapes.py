"""Attempts written in advance: what the tests of mutual feedback and of replay sample from."""

from collections.abc import Callable, Sequence

from hypothesis import strategies as st

from lorid.method.attempts import ProblemAttempts
from lorid.method.feedback import Ask, Sampled
from lorid.method.roles import Role

Answer = str | None


def text_of(answer: Answer) -> str:
    """What a reasoner writes for an answer; None is a text without one."""
    return "no idea" if answer is None else f"so.\n--> {answer} END"


def tape(intuitive: Sequence[Answer], deep: Sequence[Answer]) -> Callable[[Ask], Sampled]:
    """Samples fixed answers by side and round, again from the start when they are used up."""

    def sample(ask: Ask) -> Sampled:
        if ask.role is Role.KNOWLEDGE_GENERATOR:
            return Sampled(text=f"rule {ask.round_index}", num_tokens=3, num_prompt_tokens=1)
        side = intuitive if ask.role is Role.INTUITIVE_REASONER else deep
        answer = side[ask.round_index % len(side)]
        return Sampled(text=text_of(answer), num_tokens=5, num_prompt_tokens=2)

    return sample


def logged(
    intuitive: Sequence[Answer],
    deep: Sequence[Answer],
    *,
    gold: str | None = "1",
    problem_id: str = "p",
) -> ProblemAttempts:
    """The same answers as a line of an attempts file."""
    return ProblemAttempts(
        problem_id=problem_id,
        question="q",
        gold=gold,
        intuitive=tuple(Sampled(text=text_of(answer)) for answer in intuitive),
        knowledge=tuple(Sampled(text="rule") for _ in deep),
        deep=tuple(Sampled(text=text_of(answer)) for answer in deep),
    )


# "1/2" and "0.5" are equal and differ as texts.
ANSWERS = st.sampled_from(["1", "2", "3", "1/2", "0.5", None])
NUM_ROUNDS = 6
FULL_TAPES = st.lists(ANSWERS, min_size=NUM_ROUNDS, max_size=NUM_ROUNDS)
LOGS = st.lists(ANSWERS, max_size=NUM_ROUNDS)
