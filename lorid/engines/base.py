"""TextEngine: the one seam behind which text is generated.

    completions = await engine.generate(GenerationRequest(question="...", role=role, seed=1))

Implementations: `lorid.engines.vllm.VllmEngine` (real) and `lorid.engines.scripted.ScriptedEngine`
(the fake for tests). An engine renders prompts itself, so that callers never handle token ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from lorid.method.roles import Role

FinishReason = Literal["stop", "length", "abort"]


@dataclass(frozen=True, kw_only=True)
class GenerationRequest:
    """One text to write. `role` None asks the base model, with the intuitive reasoner's prompt."""

    question: str
    role: Role | None
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

    async def probe(self) -> Mapping[str, str]:
        """One short greedy text per role and for "base": proof that each adapter is in use."""
        ...

    async def check(self) -> None:
        """Raise EngineError when the engine has died; cheap."""
        ...
