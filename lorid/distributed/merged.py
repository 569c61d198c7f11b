"""One role's engine on merged weights: the layout `merged`.

    engine = MergedEngine(config, role=role)
    await engine.load("mine", adapters={role: folder}, sampling=...)     # merges, once a node

The weights come from the store when `lorid merge --publish` has put them there, and are otherwise
merged by the first replica of a node that needs them; they lie in a folder of the node's that its
replicas share. The base is in no engine: that the adapter changes its answer to the probe is
checked when they are merged (`lorid.training.merging`), and that the engine answers at all here.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from lorid.artifacts.copies import Copy, fetch_once, make_once, node_cache
from lorid.artifacts.merged import merged_inputs
from lorid.artifacts.records import find, version_of
from lorid.artifacts.store import open_store
from lorid.config import EndpointConfig, ModelConfig, SamplingConfig
from lorid.engines.base import Completion, GenerationRequest, TextSink
from lorid.engines.settings import set_environment
from lorid.engines.vllm import VllmEngine
from lorid.errors import EngineError
from lorid.method.roles import Role

BASE_PROBE = "(compared when the weights were merged)"


class MergedEngine:
    """A StudentTextEngine of one role and one triple."""

    def __init__(self, config: EndpointConfig, *, role: Role) -> None:
        self.config, self.role = config, role
        self.engine: VllmEngine | None = None
        self.triple: str | None = None
        # As long as it lives, the node's copy stays.
        self.copy: Copy | None = None

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """See `TripleHost.load`; another triple needs another engine."""
        if self.triple not in (None, triple):
            raise EngineError(
                f"the layout merged serves {self.triple} and no other; deploy {triple} anew"
            )
        if self.engine is None:
            # What it sets must be there before torch is.
            set_environment(self.config.engine, student=self.config.student)
            self.copy = await asyncio.to_thread(
                merged_copy, self.config, adapter=adapters[self.role], role=self.role
            )
            self.engine = self._engine_on(self.copy.folder)
        try:
            await self.engine.load(triple, adapters={}, sampling=sampling)
        except BaseException:
            self.engine = None
            raise
        self.triple = triple

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """See `TextEngine.generate`."""
        return await self._loaded().generate(request, on_text=on_text)

    async def probe(self, triple: str) -> Mapping[str, str]:
        """What the role answers; the base is not here."""
        return {"base": BASE_PROBE, **await self._loaded().probe(triple)}

    async def unload(self, triple: str) -> None:
        """End the engine: its weights are the triple's."""
        if self.engine is not None and triple == self.triple:
            engine, self.engine, self.triple, self.copy = self.engine, None, None, None
            await engine.aclose()

    async def check(self) -> None:
        """Raise EngineError when the engine has died."""
        if self.engine is not None:
            await self.engine.check()

    def _loaded(self) -> VllmEngine:
        if self.engine is None:
            raise EngineError("no merged weights are loaded")
        return self.engine

    def _engine_on(self, folder: Path) -> VllmEngine:
        student = self.config.student.model_copy(update={"path": str(folder), "revision": None})
        return VllmEngine(
            student=student,
            sampling=self.config.sampling,
            engine=self.config.engine,
            seed=self.config.seed,
            merged_role=self.role,
        )


def merged_copy(config: EndpointConfig, *, adapter: Path, role: Role) -> Copy:
    """The node's copy of a role's merged weights: there already, from the store, or merged now.

    Raises:
        AdapterMismatch: the adapter does not fit the base, or changes nothing.
    """
    student, store = config.student, open_store(config.store)
    inputs = merged_inputs(student, adapter=adapter, role=role)
    stored = find(store, kind="merged", name=config.name, inputs=inputs)
    if stored is not None:
        return fetch_once(store, stored, cache=node_cache("merged-stored"))
    folder = node_cache("merged-made") / f"{role}-{version_of(inputs)}"
    return make_once(folder, lambda new: _merge(student, adapter, new))


def _merge(student: ModelConfig, adapter: Path, folder: Path) -> None:
    from lorid.training.merging import merge_adapter

    merge_adapter(student, adapter=adapter, out=folder)
