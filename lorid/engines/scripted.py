"""The only fake in lorid: an engine that answers from a script, for tests without a model.

engine = ScriptedEngine({Role.INTUITIVE_REASONER: ["--> 3 END"], ...})
engine.history, engine.num_running   # the requests that it was sent; how many are under way
"""

import itertools
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import isawaitable
from pathlib import Path

from lorid.config import SamplingConfig
from lorid.engines.base import Completion, GenerationRequest, OnText
from lorid.errors import AdapterMismatch, EngineError
from lorid.method.roles import Role

Writer = Callable[[GenerationRequest], str | Awaitable[str]]
Script = Mapping[Role | None, Sequence[str] | Writer]


class ScriptedEngine:
    """Hands out each role's texts in turn, again from the start when they are used up.

    `idle` triples answer like the base, `unfit` ones are refused; it holds two at most.
    """

    def __init__(
        self, script: Script, *, idle: Sequence[str] = (), unfit: Sequence[str] = ()
    ) -> None:
        self.history: list[GenerationRequest] = []
        self.num_running = 0
        self.idle, self.unfit = set(idle), set(unfit)
        self.loaded: dict[str, SamplingConfig] = {}
        self.writers = {role: _writer(texts) for role, texts in script.items()}

    async def generate(
        self, request: GenerationRequest, *, on_text: OnText | None = None
    ) -> Completion:
        """The next text of the role; raises EngineError for what is not scripted or not loaded."""
        self.history.append(request)
        self.num_running += 1
        try:
            return await self._generate(request, on_text)
        finally:
            self.num_running -= 1

    async def _generate(self, request: GenerationRequest, on_text: OnText | None) -> Completion:
        if request.triple not in self.loaded:
            raise EngineError(f"{request.triple} is not loaded")
        if request.role not in self.writers:
            raise EngineError(f"nothing is scripted for {request.role}")
        written = self.writers[request.role](request)
        text = await written if isawaitable(written) else written
        if request.triple not in self.loaded:
            raise EngineError(f"{request.triple} was unloaded under a request")
        if on_text is not None:
            for piece in re.findall(r"\S+\s*", text):
                on_text(piece)
        return Completion(
            text=text, finish_reason="stop", num_prompt_tokens=1, num_tokens=len(text.split())
        )

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """Remember the triple, unless it is scripted as unfit or would be the third."""
        if triple in self.unfit:
            raise AdapterMismatch(f"{triple} does not fit")
        if len(self.loaded) == 2:
            raise EngineError("two triples are loaded already")
        self.loaded[triple] = sampling

    async def unload(self, triple: str) -> None:
        """Forget the triple."""
        del self.loaded[triple]

    async def probe(self, triple: str) -> Mapping[str, str]:
        """Texts that differ from the base's, unless the triple is scripted as idle."""
        roles = {str(role): "base" if triple in self.idle else f"as {role}" for role in Role}
        return {"base": "base", **roles}

    async def check(self) -> None:
        """A scripted engine never dies."""

    async def aclose(self) -> None:
        """Nothing to give back."""


def _writer(texts: Sequence[str] | Writer) -> Writer:
    if callable(texts):
        return texts
    turn = itertools.cycle(texts)
    return lambda _: next(turn)
