"""The HTTP bodies, shared by server and client. Every size is bounded here.

Nothing in a body names a file, a model path or an adapter: requests choose among what is loaded.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lorid.method.problems import MAX_ID_CHARS, MAX_TEXT_CHARS
from lorid.method.stopping import LIVE_RULES, NO_ORACLE, ORACLE

MAX_ITEMS = 1000
MAX_ROUNDS = 100

Question = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Answer = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
OutcomeName = Literal["agreed", "exhausted", "no_answer"]
VerdictName = Literal["correct", "incorrect", "undecided"]


class Body(BaseModel):
    """Base of every body: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HowToSolve(Body):
    """What a request may choose; None takes the run's setting."""

    max_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] | None = None
    rule: Annotated[str, Field(description=f"one of {', '.join(LIVE_RULES)}")] | None = None
    seed: Seed | None = None

    @field_validator("rule")
    @classmethod
    def _served(cls, rule: str | None) -> str | None:
        if rule == ORACLE:
            raise ValueError(NO_ORACLE)
        if rule is not None and rule not in LIVE_RULES:
            raise ValueError(f"unknown rule {rule!r}; choose {', '.join(LIVE_RULES)}")
        return rule


class SolveRequest(HowToSolve):
    """Body of `POST /v1/solve`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"question": "Tom has 12 apples. He gives 5 away. How many are left?"}]
        }
    )

    question: Question
    stream: Literal[False] = False


class AttemptBody(Body):
    """One attempt."""

    rationale: str
    answer: str | None


class RoundBody(Body):
    """One round; a side that the rule does not ask is null."""

    intuitive: AttemptBody | None
    knowledge: str | None
    deep: AttemptBody | None
    agreed: bool


class Usage(Body):
    """What an answer cost.

    `num_generations` counts every text that was begun, `num_wasted` those of them that turned out
    not to be needed (only with waves). Tokens are of the texts that came back.
    """

    num_generations: int
    num_wasted: int = 0
    prompt_tokens: int
    completion_tokens: int


class SolveResponse(Body):
    """Answer of `POST /v1/solve`."""

    id: str
    answer: str | None
    outcome: OutcomeName
    confidence: float | None
    num_rounds: int
    rounds: list[RoundBody]
    usage: Usage


class GradeItem(Body):
    """One thing to grade. Either `reference` or `submission` is needed; both are compared alone."""

    id: ItemId
    question: Question
    reference: Answer | None = None
    submission: Answer | None = None


class GradeRequest(HowToSolve):
    """Body of `POST /v1/grade`; items are checked one by one, a bad one is its own error."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"items": [{"id": "1", "question": "2 + 3 = ?", "reference": "5"}]}]
        }
    )

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_ITEMS)
    include_transcripts: bool = False


class Transcript(Body):
    """All that was drawn for an item: the rounds, and its line of an attempts file."""

    rounds: list[RoundBody]
    attempts: dict[str, Any]


class GradeResult(Body):
    """The verdict on one item, or its error."""

    id: str
    verdict: VerdictName | None = None
    answer: str | None = None
    outcome: OutcomeName | None = None
    confidence: float | None = None
    num_rounds: int = 0
    reason: str
    error: str | None = None
    transcript: Transcript | None = None


class GradeSummary(Body):
    """Counts over a request; `accuracy` is a share of the items without an error."""

    num_items: int
    num_correct: int
    num_incorrect: int
    num_undecided: int
    num_errors: int
    accuracy: float | None
    mean_rounds: float


class GradeResponse(Body):
    """Answer of `POST /v1/grade`."""

    results: list[GradeResult]
    summary: GradeSummary


class ChatMessage(Body):
    """One message; the last one of the user is the question."""

    role: Literal["system", "user", "assistant"]
    content: Question


class ChatRequest(BaseModel):
    """Body of `POST /v1/chat/completions`; other fields of that API are accepted and ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    model: str = "lorid"
    messages: list[ChatMessage] = Field(min_length=1, max_length=50)
    seed: Seed | None = None
    stream: bool = False


class ErrorDetail(Body):
    """What went wrong."""

    type: str
    message: str
    request_id: str


class ErrorBody(Body):
    """Body of every answer that is an error."""

    error: ErrorDetail


def summarize_results(results: list[GradeResult]) -> GradeSummary:
    """Counts over the results of a request."""
    verdicts = [result.verdict for result in results]
    num_errors = sum(result.error is not None for result in results)
    num_judged = len(results) - num_errors
    solved = [result.num_rounds for result in results if result.num_rounds]
    return GradeSummary(
        num_items=len(results),
        num_correct=verdicts.count("correct"),
        num_incorrect=verdicts.count("incorrect"),
        num_undecided=verdicts.count("undecided"),
        num_errors=num_errors,
        accuracy=verdicts.count("correct") / num_judged if num_judged else None,
        mean_rounds=sum(solved) / len(solved) if solved else 0.0,
    )
