"""A scripted engine whose texts take their time: what a test of the graph around it needs."""

import asyncio
import os

from lorid.config import EndpointConfig
from lorid.distributed.sources import TripleFiles, Wanted
from lorid.engines.base import Completion, GenerationRequest, TextSink
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role
from lorid.presets import demo


class PacedEngine(ScriptedEngine):
    """Every text takes `seconds`, and says what it was asked."""

    def __init__(self, seconds: float) -> None:
        super().__init__({role: _echo for role in (*Role, None)})
        self.seconds = seconds

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        await asyncio.sleep(self.seconds)
        # Of an hour of load nothing may be left.
        self.history.clear()
        return await super().generate(request, on_text=on_text)


def _echo(request: GenerationRequest) -> str:
    return f"{request.question} {request.seed}\n--> 7 END"


class Paced:
    """The factory, for the replicas' processes."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, _: EndpointConfig) -> PacedEngine:
        return PacedEngine(self.seconds)


class OneTriple:
    """A source of one triple without files."""

    def wanted(self) -> Wanted:
        return Wanted(address="triple/demo/0123456789ab")

    def earlier(self) -> list[Wanted]:
        return []

    def fetch(self, address: str) -> TripleFiles:
        return TripleFiles(address=address, folders={}, config=demo().endpoint())


class TellingEngine(PacedEngine):
    """Says whose process wrote each text; no two roles agree, so that all rounds are drawn."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.writers = dict.fromkeys((*Role, None), _told)


def _told(request: GenerationRequest) -> str:
    return f"{os.getpid()}\n--> {7 if request.role is Role.DEEP_REASONER else 6} END"


class Telling(Paced):
    """The factory of those."""

    def __call__(self, _: EndpointConfig) -> PacedEngine:
        return TellingEngine(self.seconds)
