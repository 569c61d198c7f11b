"""Teacher: the one seam behind which knowledge is written.

    reply = await teacher.ask(request)

Three real ones: an OpenAI-compatible API (`lorid.teacher.api`), a provider's batch API
(`lorid.teacher.batch`) and vLLM on the cluster (`lorid.engines.teaching`). A teacher sends one
request once and says what came of it; limits, retries, the ledger and money are the desk's
(`lorid.teacher.desk`).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

CHARS_PER_TOKEN = 4
"""An estimate for English, where no tokenizer is at hand."""


@dataclass(frozen=True, kw_only=True)
class TeacherRequest:
    """One text to write. `ask` counts from 1 how often this problem was asked."""

    prompt: str
    temperature: float
    seed: int
    ask: int = 1

    def key(self, teacher: Mapping[str, Any]) -> str:
        """What the ledger knows this request by: everything the answer may depend on.

        `teacher` says who answers, and with which settings. Where a server lives is not in it.
        """
        content = {"teacher": dict(teacher), **asdict(self)}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens as the teacher counts them; cached input is part of the input."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0

    @property
    def total(self) -> int:
        """What a limit on tokens counts."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What came back. `finish_reason` is "stop", "length", "refusal", or the server's own word."""

    text: str
    finish_reason: str
    usage: Usage
    model: str

    def to_row(self) -> dict[str, Any]:
        """Plain values, for the ledger and for the way between processes."""
        return asdict(self)

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> "Reply":
        """The inverse of `to_row`; raises KeyError or TypeError when the row is another thing."""
        return cls(
            text=str(row["text"]),
            finish_reason=str(row["finish_reason"]),
            usage=Usage(**row["usage"]),
            model=str(row["model"]),
        )


class Teacher(Protocol):
    """Writes one text for one request."""

    async def ask(self, request: TeacherRequest) -> Reply:
        """Ask once.

        Raises:
            Failed: no usable response; says of which kind the failure is.
        """
        ...

    async def aclose(self) -> None:
        """Let connections go."""
        ...
