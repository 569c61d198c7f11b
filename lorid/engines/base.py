"""TextEngine: the one seam behind which text is generated.

    completions = await engine.generate(GenerationRequest(question="...", role=role, triple="x"))

Implementations: `lorid.engines.vllm.VllmEngine` (real) and `lorid.engines.scripted.ScriptedEngine`
(the fake for tests). An engine renders prompts itself, so that callers never handle token ids.
A `StudentTextEngine` is also a `TripleHost`: triples come and go while it answers, and each request
names the one that it wants.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from lorid.config import SamplingConfig
from lorid.method.roles import Role

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One text to write by a role of a loaded triple.

    `role` None asks the base model, with the intuitive reasoner's prompt and the triple's sampling.
    `max_tokens` can only lower the triple's own bound.
    """

    question: str
    role: Role | None
    triple: str
    knowledge: str | None = None
    seed: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came back; token counts are the engine's.

    `num_cached_tokens` are those of the prompt that the engine had read before.
    """

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int
    num_cached_tokens: int = field(default=0, compare=False)


# Called with each further piece of a text, on the engine's event loop.
TextSink = Callable[[str], None]


class Pieces:
    """Hands on what is new in a text that grows, without the white space that it begins with."""

    def __init__(self, on_text: TextSink | None) -> None:
        self.on_text, self.num_chars = on_text, 0

    def more(self, text: str) -> None:
        """The text so far."""
        if self.on_text is None:
            return
        text = text.lstrip()
        if len(text) > self.num_chars:
            self.on_text(text[self.num_chars :])
            self.num_chars = len(text)


class TextEngine(Protocol):
    """Generates text for a role."""

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """Write one text; cancelling this call ends the work on it.

        `on_text` gets it piece by piece; together the pieces are the completion's text, but for
        white space at its end.

        Raises:
            EngineError: the engine cannot.
        """
        ...

    async def probe(self, triple: str) -> Mapping[str, str]:
        """One short greedy text per role and for "base": proof that each adapter is in use."""
        ...

    async def check(self) -> None:
        """Raise EngineError when the engine has died; cheap."""
        ...


class TripleHost(Protocol):
    """Holds triples beside one base, at most as many as it was made for."""

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """Take a triple in under a name; the first one starts the engine.

        Raises:
            AdapterMismatch: an adapter does not fit; nothing of the triple is left in the engine.
            EngineError: the engine cannot start, or holds as many triples as it can.
        """
        ...

    async def unload(self, triple: str) -> None:
        """Let a triple go that no request uses any more."""
        ...


def idle_roles(probes: Mapping[str, str], *, roles: Iterable[Role] = Role) -> list[str]:
    """Which of the roles answer the probe like the base, or not: their adapter does nothing."""
    base = probes["base"]
    return [str(role) for role in roles if probes.get(str(role), base) == base]


class StudentTextEngine(TextEngine, TripleHost, Protocol):
    """What an endpoint needs: text, and triples that come and go."""
