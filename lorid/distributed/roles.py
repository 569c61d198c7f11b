"""An engine for each role: the layouts `split` and `merged`.

    mutual feedback (student.py) --> RoleEngines --+-- IR's handle --> RoleEngine, 1..N replicas
                                                   +-- KG's handle --> RoleEngine, 1..N
                                                   '-- DR's handle --> RoleEngine, 1..N

To the driver RoleEngines is an engine like any other. A RoleEngine's replica brings a triple when a
text first asks for it, so replicas that start later, or after a crash, need nobody to tell them;
it lets go of the one that was not used for longest when it needs the room. Before a triple writes
its first text here, its adapter has answered a probe unlike the base.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from lorid.config import EndpointConfig, SamplingConfig
from lorid.distributed.bodies import cause_of
from lorid.distributed.calls import Calls, by_grpc
from lorid.distributed.logs import without_serves_lines
from lorid.distributed.sources import TripleSource
from lorid.distributed.student import EngineFactory, as_they_come
from lorid.engines.base import (
    Completion,
    GenerationRequest,
    StudentTextEngine,
    TextSink,
    idle_roles,
)
from lorid.errors import AdapterIdle, LoridError
from lorid.method.roles import Role


class RoleEngine:
    """One role's engine in its replica, with room for `num_triples`."""

    def __init__(
        self,
        config_json: str,
        role: str,
        factory: EngineFactory,
        source: TripleSource,
        num_triples: int,
    ) -> None:
        without_serves_lines()
        self.role, self.source, self.num_triples = Role(role), source, num_triples
        self.engine: StudentTextEngine = factory(EndpointConfig.model_validate_json(config_json))
        # By last use; how many texts each has under way.
        self.held: dict[str, int] = {}
        self.probes: dict[str, Mapping[str, str]] = {}
        self._coming: dict[str, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._ended = asyncio.Event()

    async def take(self, triple: str) -> Mapping[str, str]:
        """Bring the triple if it is not here; what base and role answered to the probe."""
        async with self._using(triple):
            return self.probes[triple]

    async def write(self, request: GenerationRequest, *, on_text: TextSink | None = None) -> Any:
        """One text."""
        async with self._using(request.triple):
            return await self.engine.generate(request, on_text=on_text)

    async def write_stream(self, request: GenerationRequest) -> AsyncIterator[str | Completion]:
        """The pieces of a text, then the whole."""

        async def write(on_text: TextSink) -> Completion:
            return await self.write(request, on_text=on_text)

        async for piece in as_they_come(write):
            yield piece

    async def check_health(self) -> None:
        """Serve replaces the replica when this raises."""
        await self.engine.check()

    @asynccontextmanager
    async def _using(self, triple: str) -> AsyncIterator[None]:
        while triple not in self.held:
            if triple not in self._coming:
                self._coming[triple] = asyncio.create_task(self._bring(triple))
            # A caller that goes away must not stop what others wait for.
            await asyncio.shield(self._coming[triple])
        self.held[triple] = self.held.pop(triple) + 1
        try:
            yield
        finally:
            self.held[triple] -= 1
            self._ended.set()

    async def _bring(self, triple: str) -> None:
        try:
            async with self._turn:
                files = await asyncio.to_thread(self.source.fetch, triple)
                await self._make_room()
                own = {role: path for role, path in files.folders.items() if role is self.role}
                await self.engine.load(triple, adapters=own, sampling=files.config.sampling)
                try:
                    self.probes[triple] = await self.engine.probe(triple)
                    if idle_roles(self.probes[triple], roles=[self.role]):
                        raise AdapterIdle(f"this adapter answers like the base: {self.role}")
                except BaseException:
                    self.probes.pop(triple, None)
                    await asyncio.shield(self.engine.unload(triple))
                    raise
                self.held[triple] = 0
        finally:
            del self._coming[triple]

    async def _make_room(self) -> None:
        while len(self.held) >= self.num_triples:
            oldest = next((one for one, num_texts in self.held.items() if not num_texts), None)
            if oldest is None:
                self._ended.clear()
                await self._ended.wait()
                continue
            # Out of the table first: nobody may begin a text by it while it goes.
            del self.held[oldest], self.probes[oldest]
            await self.engine.unload(oldest)


class RoleEngines:
    """The engine that a question's driver sees: a text goes to the engine of its role."""

    def __init__(self, handles: Mapping[Role, Any]) -> None:
        self.calls = {role: Calls(by_grpc(handle)) for role, handle in handles.items()}

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """See `TextEngine.generate`; the base is asked where the intuitive reasoner lives."""
        calls = self.calls[request.role or Role.INTUITIVE_REASONER]
        try:
            if on_text is None:
                return await calls.call("write", request)
            whole: Any = None
            async for piece in calls.pieces("write_stream", request):
                if isinstance(piece, str):
                    on_text(piece)
                else:
                    whole = piece
            return whole
        except LoridError as error:
            # What crossed from another replica has its traceback for a text.
            raise cause_of(error) from error

    async def load(
        self, triple: str, *, adapters: Mapping[Role, Path], sampling: SamplingConfig
    ) -> None:
        """Let an engine of each role bring the triple; they fetch its adapters themselves.

        Raises:
            AdapterMismatch: one of them refuses; the others let it go when they need the room.
        """
        del adapters, sampling
        await self.probe(triple)

    async def unload(self, triple: str) -> None:
        """Nothing to do: other drivers may use it still; the engines make room when they must."""

    async def probe(self, triple: str) -> Mapping[str, str]:
        """What each role's engine answered, and the base."""
        try:
            answers = await asyncio.gather(
                *(calls.call("take", triple) for calls in self.calls.values())
            )
        except LoridError as error:
            raise cause_of(error) from error
        return {name: text for answer in answers for name, text in answer.items()}

    async def check(self) -> None:
        """Serve looks after the roles' engines itself."""


class Roles:
    """The factory of RoleEngines; `handles` are Serve's, in place of the bound deployments."""

    def __init__(self, handles: Mapping[Role, Any]) -> None:
        self.handles = dict(handles)

    def __call__(self, _: EndpointConfig) -> RoleEngines:
        """See `EngineFactory`."""
        return RoleEngines(self.handles)
