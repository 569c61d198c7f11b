"""One triple after another in one engine, without a restart and without a failed question.

    switch = TripleSwitch(engine, source, poll_s=10)
    async with switch.lease() as triple:     # its rounds all use this triple
        ...

      alias moves                    new questions                   old questions end
          |                               |                               |
     fetch, verify -> load beside -> probe -> current = new    ...    unload the old
          |   the old one serves on           |   two are loaded          |   one is loaded
          '-- refused: the old one stays, the reason is shown

The engine holds two triples. While the old one drains, a move back to it is instant, and a move to
a third waits. Each replica does this on its own. A wish that was refused is not tried again until
the alias gets a new entry; a store that does not answer is asked again at the next poll.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lorid.config import EndpointConfig
from lorid.distributed.sources import TripleFiles, TripleSource, Wanted
from lorid.engines.base import StudentTextEngine, idle_roles
from lorid.errors import (
    AdapterIdle,
    AdapterMismatch,
    ArtifactDrifted,
    ArtifactError,
    ArtifactIncomplete,
    ConfigError,
    EngineError,
    LoridError,
)

# What is wrong with a triple itself; anything else may be over at the next try.
UNFIT = (AdapterMismatch, ArtifactDrifted, ArtifactIncomplete)
# In an engine that serves, what else goes wrong with a new triple is its own too.
REFUSALS = (*UNFIT, ConfigError, EngineError)
# Serve gives this logger a file and the console.
logger = logging.getLogger("ray.serve.lorid")


@dataclass(kw_only=True)
class LoadedTriple:
    """A triple in the engine, its defaults, and how many questions are on it."""

    files: TripleFiles
    num_questions: int = 0

    @property
    def address(self) -> str:
        """The triple's address."""
        return self.files.address

    @property
    def config(self) -> EndpointConfig:
        """The triple's defaults."""
        return self.files.config


class TripleSwitch:
    """Holds the triple that new questions get, and follows the source."""

    def __init__(
        self, engine: StudentTextEngine, source: TripleSource, *, poll_s: float | None
    ) -> None:
        self.engine, self.source, self.poll_s = engine, source, poll_s
        self.loaded: dict[str, LoadedTriple] = {}
        self.current: LoadedTriple | None = None
        self.refused: Wanted | None = None
        self.refused_because: str | None = None
        self.trouble: str | None = None
        self._starting: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    async def start(self) -> LoadedTriple:
        """Load the first triple, once, and begin to follow; returns what new questions get.

        A wanted triple that is refused leaves the newest earlier one that is not.

        Raises:
            LoridError: none could be loaded; the next call tries again.
        """
        if self.current is None:
            if self._starting is None or self._starting.done():
                self._starting = asyncio.create_task(self._start())
            # A question that goes away must not stop the start that others wait for.
            await asyncio.shield(self._starting)
        assert self.current is not None
        return self.current

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[LoadedTriple]:
        """The current triple, kept in the engine for the duration of the block."""
        triple = await self.start()
        triple.num_questions += 1
        try:
            yield triple
        finally:
            triple.num_questions -= 1

    async def poll(self) -> None:
        """Look once what is wanted: switch to it, and let go of what nobody uses any more."""
        async with self._turn:
            await self._let_go()
            wanted = await self._look()
            if wanted is None or self.current is None or wanted == self.refused:
                return
            if wanted.address == self.current.address:
                self.refused = self.refused_because = None
            elif wanted.address in self.loaded:
                self._set_current(self.loaded[wanted.address])
            elif len(self.loaded) < 2:
                await self._switch_to(wanted)
            await self._let_go()

    def status(self) -> dict[str, Any]:
        """What is served, what drains, and why something wanted is not served."""
        drains = {
            triple.address: triple.num_questions
            for triple in self.loaded.values()
            if triple is not self.current
        }
        return {
            "triple": self.current.address if self.current else None,
            "draining": drains,
            "refused": self.refused and self.refused.address,
            "refused_because": self.refused_because,
            "trouble": self.trouble,
        }

    async def aclose(self) -> None:
        """Stop following."""
        for task in (self._starting, self._following):
            if task is not None:
                task.cancel()

    async def _start(self) -> None:
        async with self._turn:
            wanted = await asyncio.to_thread(self.source.wanted)
            try:
                self._set_current(await self._load(wanted))
            except UNFIT as error:
                await self._start_earlier(wanted, error)
        if self.poll_s is not None and self._following is None:
            self._following = asyncio.create_task(self._follow(self.poll_s))

    async def _start_earlier(self, wanted: Wanted, refusal: LoridError) -> None:
        earlier: Sequence[Wanted] = await asyncio.to_thread(self.source.earlier)
        for one in earlier:
            if one.address == wanted.address:
                continue
            try:
                self._set_current(await self._load(one))
            except UNFIT as error:
                logger.warning("%s is refused too: %s", one.address, error)
                continue
            self._refuse(wanted, refusal, kept=one.address)
            return
        raise refusal

    async def _follow(self, poll_s: float) -> None:
        while True:
            await asyncio.sleep(poll_s)
            try:
                await self.poll()
            except Exception:
                # Following must outlive what nobody thought of; what is served goes on.
                logger.exception("looking for a new triple failed")

    async def _look(self) -> Wanted | None:
        try:
            wanted = await asyncio.to_thread(self.source.wanted)
        except LoridError as error:
            self._have_trouble(error)
            return None
        self.trouble = None
        return wanted

    async def _switch_to(self, wanted: Wanted) -> None:
        assert self.current is not None
        try:
            self._set_current(await self._load(wanted))
        except REFUSALS as error:
            self._refuse(wanted, error, kept=self.current.address)
        except ArtifactError as error:
            self._have_trouble(error)

    async def _load(self, wanted: Wanted) -> LoadedTriple:
        """Fetch, load and probe; what fails leaves nothing in the engine."""
        files = await asyncio.to_thread(self.source.fetch, wanted.address)
        await self.engine.load(
            files.address, adapters=files.folders, sampling=files.config.sampling
        )
        try:
            idle = idle_roles(await self.engine.probe(files.address))
            if idle:
                raise AdapterIdle(f"these adapters answer like the base: {', '.join(idle)}")
        except BaseException:
            await asyncio.shield(self.engine.unload(files.address))
            raise
        triple = LoadedTriple(files=files)
        self.loaded[triple.address] = triple
        return triple

    async def _let_go(self) -> None:
        for triple in list(self.loaded.values()):
            if triple is not self.current and triple.num_questions == 0:
                # Out of the table first: nobody may come back to it while it goes.
                del self.loaded[triple.address]
                await self.engine.unload(triple.address)
                logger.info("%s is drained and unloaded", triple.address)

    def _set_current(self, triple: LoadedTriple) -> None:
        before = self.current.address if self.current else "nothing"
        self.current = triple
        self.refused = self.refused_because = None
        logger.info("new questions go to %s, before to %s", triple.address, before)

    def _refuse(self, wanted: Wanted, error: LoridError, *, kept: str) -> None:
        self.refused, self.refused_because = wanted, str(error)
        logger.warning("%s is refused, %s stays: %s", wanted.address, kept, error)

    def _have_trouble(self, error: LoridError) -> None:
        if self.trouble != str(error):
            logger.warning("cannot look for a new triple: %s", error)
        self.trouble = str(error)
