"""TextEngine: the one seam behind which text is generated.

    completions = await engine.generate(GenerationRequest(question="...", role=role, triple="x"))

Implementations: `lorid.engines.vllm.VllmEngine` (real) and `lorid.engines.scripted.ScriptedEngine`
(the fake for tests). An engine renders prompts itself, so that callers never handle token ids.
A `StudentTextEngine` is also a `TripleHost`: triples come and go while it answers, and each request
names the one that it wants.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from lorid.config import SamplingConfig
from lorid.method.roles import Role

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One text to write by a role of a loaded triple.

    `role` None asks the base model, with the intuitive reasoner's prompt and the triple's sampling.
    """

    question: str
    role: Role | None
    triple: str
    knowledge: str | None = None
    seed: int | None = None


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came back; token counts are the engine's."""

    text: str
    finish_reason: FinishReason
    num_prompt_tokens: int
    num_tokens: int


class TextEngine(Protocol):
    """Generates text for a role."""

    async def generate(self, request: GenerationRequest) -> Completion:
        """Write one text; raises EngineError when the engine cannot."""
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


def idle_roles(probes: Mapping[str, str]) -> list[str]:
    """Roles whose probe equals the base's: their adapter does nothing."""
    base = probes["base"]
    return [str(role) for role in Role if probes.get(str(role), base) == base]


class StudentTextEngine(TextEngine, TripleHost, Protocol):
    """What an endpoint needs: text, and triples that come and go."""
