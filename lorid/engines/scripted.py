"""The only fake in lorid: an engine that answers from a script, for tests without a model.

engine = ScriptedEngine({Role.INTUITIVE_REASONER: ["--> 3 END"], ...})
engine.history   # the requests that it was sent
"""

import itertools
from collections.abc import Callable, Mapping, Sequence

from lorid.engines.base import Completion, GenerationRequest
from lorid.errors import EngineError
from lorid.method.roles import Role

Script = Mapping[Role | None, Sequence[str] | Callable[[GenerationRequest], str]]


class ScriptedEngine:
    """Hands out each role's texts in turn, again from the start when they are used up."""

    def __init__(self, script: Script, *, idle_adapters: bool = False) -> None:
        self.history: list[GenerationRequest] = []
        self.idle_adapters = idle_adapters
        self.writers = {role: _writer(texts) for role, texts in script.items()}

    async def generate(self, request: GenerationRequest) -> Completion:
        """The next text of the role; raises EngineError for a role without a script."""
        self.history.append(request)
        if request.role not in self.writers:
            raise EngineError(f"nothing is scripted for {request.role}")
        text = self.writers[request.role](request)
        return Completion(
            text=text, finish_reason="stop", num_prompt_tokens=1, num_tokens=len(text.split())
        )

    async def probe(self) -> Mapping[str, str]:
        """Texts that differ from the base's, unless `idle_adapters`."""
        roles = {str(role): "base" if self.idle_adapters else f"as {role}" for role in Role}
        return {"base": "base", **roles}

    async def check(self) -> None:
        """A scripted engine never dies."""

    async def aclose(self) -> None:
        """Nothing to give back."""


def _writer(
    texts: Sequence[str] | Callable[[GenerationRequest], str],
) -> Callable[[GenerationRequest], str]:
    if callable(texts):
        return texts
    turn = itertools.cycle(texts)
    return lambda _: next(turn)
