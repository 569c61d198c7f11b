"""The HTTP bodies, shared by server and client. Every size is bounded here.

Nothing in a body names a file, a model path or an adapter: requests choose among what is loaded.
A stream of `/v1/solve` is made of `AttemptEvent` and `RoundEvent`, then `SolveResponse` or
`ErrorBody`; one of `/v1/grade` of a `GradeResult` a line, then `GradeSummaryLine`.
"""

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from lorid.method.problems import MAX_ID_CHARS, MAX_TEXT_CHARS
from lorid.method.stopping import LIVE_RULES, NO_ORACLE, ORACLE
from lorid.serving import MAX_ITEMS

MAX_ROUNDS = 100
MAX_TIMEOUT_S = 86_400.0

Question = Annotated[str, Field(min_length=1, max_length=MAX_TEXT_CHARS)]
Answer = Annotated[str, Field(max_length=MAX_TEXT_CHARS)]
ItemId = Annotated[str, Field(min_length=1, max_length=MAX_ID_CHARS)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
OutcomeName = Literal["agreed", "exhausted", "no_answer"]
VerdictName = Literal["correct", "incorrect", "undecided"]
RoleName = Literal["intuitive_reasoner", "knowledge_generator", "deep_reasoner"]
Timeout = Annotated[
    float,
    Field(
        gt=0,
        le=MAX_TIMEOUT_S,
        description="seconds until the request is given up; the endpoint caps it",
    ),
]
QUESTION_EXAMPLE = "Tom has 12 apples. He gives 5 away. How many are left?"


class Body(BaseModel):
    """Base of every body: frozen, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class HowToSolve(Body):
    """What a request may choose; None takes the run's setting."""

    max_rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] | None = None
    rule: Annotated[str, Field(description=f"one of {', '.join(LIVE_RULES)}")] | None = None
    seed: Seed | None = None
    timeout_s: Timeout | None = None

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
            "examples": [
                {"question": QUESTION_EXAMPLE},
                {"question": QUESTION_EXAMPLE, "max_rounds": 5, "seed": 7, "timeout_s": 30},
            ]
        }
    )

    question: Question
    stream: bool = False


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
    """Answer of `POST /v1/solve`; `triple` is the address of the one that wrote it."""

    id: str
    triple: str
    answer: str | None
    outcome: OutcomeName
    confidence: float | None
    num_rounds: int
    rounds: list[RoundBody]
    usage: Usage


class AttemptEvent(Body):
    """`attempt`: one text has ended; the knowledge generator's has no answer."""

    round: int
    role: RoleName
    text: str
    answer: str | None


class RoundEvent(Body):
    """`round`: one round is judged; rounds come in their order, from 1."""

    round: int
    body: RoundBody


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
            "examples": [
                {"items": [{"id": "1", "question": QUESTION_EXAMPLE, "reference": "7"}]},
                {
                    "items": [
                        {"id": "1", "question": QUESTION_EXAMPLE, "submission": "7"},
                        {"id": "2", "question": "2 + 3 = ?", "reference": "5", "submission": "6"},
                    ],
                    "seed": 7,
                },
                {
                    "items": [
                        {
                            "id": "1",
                            "question": QUESTION_EXAMPLE,
                            "reference": "7",
                            "submission": "5 are given away: 12 - 5 = 8\n--> 8",
                        }
                    ],
                    "include_feedback": True,
                },
            ]
        }
    )

    items: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_ITEMS)
    include_transcripts: bool = False
    include_feedback: Annotated[
        bool, Field(description="say where a submission departs, and give a hint")
    ] = False


class Transcript(Body):
    """All that was drawn for an item: the rounds, and its line of an attempts file."""

    rounds: list[RoundBody]
    attempts: dict[str, Any]


class DepartureBody(Body):
    """The first line of a submission whose arithmetic does not hold.

    `line` counts from 1; `claim` is `left = right` as written there, `expected` what it is exactly
    (which is the answer itself when the last step fails).
    """

    line: int
    text: str
    claim: str
    expected: str


class Feedback(Body):
    """What a tutor would say; it never changes a verdict.

    `departure` is null when no arithmetic is found to be wrong. `hint` holds rules of the triple's
    knowledge that do not give the answer away; there may be none.
    """

    departure: DepartureBody | None
    hint: list[str]


class GradeResult(Body):
    """The verdict on one item, or its error; `triple` is null when no model was asked.

    `error_type` is one of `bad_item`, `invalid_request` (such as a question that is too long for
    the engine), `deadline_exceeded`, `unavailable`, `draining`, `internal_error`; all but the first
    two may be over when the item is sent again.
    """

    id: str
    triple: str | None = None
    verdict: VerdictName | None = None
    answer: str | None = None
    outcome: OutcomeName | None = None
    confidence: float | None = None
    num_rounds: int = 0
    reason: str
    error: str | None = None
    error_type: str | None = None
    transcript: Transcript | None = None
    feedback: Feedback | None = None


class GradeSummary(Body):
    """Counts over a request; `accuracy` is a share of the items without an error.

    `triples`: those that solved items, in order of appearance; two when one took over meanwhile.
    """

    num_items: int
    num_correct: int
    num_incorrect: int
    num_undecided: int
    num_errors: int
    accuracy: float | None
    mean_rounds: float
    triples: list[str]


class GradeSummaryLine(Body):
    """The last line of a stream of results."""

    summary: GradeSummary


class GradeResponse(Body):
    """Answer of `POST /v1/grade`."""

    results: list[GradeResult]
    summary: GradeSummary


class Fact(Body):
    """One row of a card; code in `value` is between backticks."""

    name: str
    value: str


class TripleCard(Body):
    """Answer of `GET /v1/triple`: what is known of the triple that is served."""

    triple: str
    facts: list[Fact]


class ChatMessage(Body):
    """One message; the last one of the user is the question."""

    role: Literal["system", "user", "assistant"]
    content: Question


class StreamOptions(BaseModel):
    """`include_usage` asks for a last chunk with the usage."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """Body of `POST /v1/chat/completions`; other fields of that API are accepted and ignored.

    `max_tokens` and `max_completion_tokens` can only lower the triple's own bound of a text; they
    hold for the models that answer alone, not for `lorid`, whose texts must reach their answers.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_extra={
            "examples": [
                {"model": "lorid", "messages": [{"role": "user", "content": QUESTION_EXAMPLE}]}
            ]
        },
    )

    model: Annotated[str, Field(max_length=200)] = "lorid"
    messages: list[ChatMessage] = Field(min_length=1, max_length=50)
    seed: Seed | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    timeout_s: Timeout | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def token_limit(self) -> int | None:
        """The lower of the two bounds that are given."""
        given = [one for one in (self.max_tokens, self.max_completion_tokens) if one is not None]
        return min(given, default=None)


class ErrorDetail(Body):
    """What went wrong."""

    type: str
    message: str
    request_id: str


class ErrorBody(Body):
    """Body of every answer that is an error."""

    error: ErrorDetail


class GradeCounts:
    """Counts over results as they come; keeps none of them."""

    def __init__(self) -> None:
        self.verdicts: Counter[str | None] = Counter()
        self.triples: dict[str, None] = {}
        self.num_items = self.num_errors = self.num_solved = self.num_rounds = 0

    def add(self, result: GradeResult) -> None:
        """Count one more result."""
        self.num_items += 1
        self.num_errors += result.error is not None
        self.verdicts[result.verdict] += 1
        self.num_solved += result.num_rounds > 0
        self.num_rounds += result.num_rounds
        if result.triple:
            self.triples[result.triple] = None

    def summary(self) -> GradeSummary:
        """The counts so far."""
        num_judged = self.num_items - self.num_errors
        return GradeSummary(
            num_items=self.num_items,
            num_correct=self.verdicts["correct"],
            num_incorrect=self.verdicts["incorrect"],
            num_undecided=self.verdicts["undecided"],
            num_errors=self.num_errors,
            accuracy=self.verdicts["correct"] / num_judged if num_judged else None,
            mean_rounds=self.num_rounds / self.num_solved if self.num_solved else 0.0,
            triples=list(self.triples),
        )
