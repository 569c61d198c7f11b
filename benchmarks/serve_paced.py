"""An engine whose texts take as long as the question says, and never agree: what is left is ours.

"0.02 s, question 7": every text takes 20 ms

Like vLLM it writes `engine.max_num_seqs` texts at once, and the others wait in the order in which
they came: whoever asks it has the same batch.
"""

import asyncio
from dataclasses import dataclass

from lorid.config import EndpointConfig
from lorid.distributed.sources import TripleFiles, Wanted
from lorid.engines.base import Completion, GenerationRequest, TextSink
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role
from lorid.presets import demo

TRIPLE = "triple/demo/0123456789ab"


def paced(seconds: float, number: int) -> str:
    """A question whose texts take so long."""
    return f"{seconds} s, question {number}"


@dataclass(frozen=True, kw_only=True)
class Load:
    """How long texts take, how many rounds a question has, how many questions there are at once."""

    text_s: float
    rounds: int
    in_flight: int
    count: int
    turns: int = 1

    @property
    def name(self) -> str:
        """The key of its figures."""
        return f"{self.in_flight} in flight, {self.rounds} rounds, {self.text_s:g} s a text"


ALONE = (
    Load(text_s=0.02, rounds=1, in_flight=1, count=240, turns=6),
    Load(text_s=0.02, rounds=3, in_flight=1, count=96, turns=4),
)
MANY = (
    Load(text_s=0.5, rounds=1, in_flight=64, count=192),
    Load(text_s=0.3, rounds=3, in_flight=64, count=192),
    Load(text_s=0.1, rounds=3, in_flight=64, count=384, turns=2),
)
NO_TIME = Load(text_s=0.0, rounds=1, in_flight=64, count=512, turns=2)
# 64 questions want 128 texts at once: the preset's batch bounds them, a wide one does not.
WIDE_BATCH = 192


class PacedEngine(ScriptedEngine):
    """Each text's answer is its seed: a question takes all the rounds that it may."""

    def __init__(self, *, max_num_seqs: int) -> None:
        super().__init__(dict.fromkeys((*Role, None), _seed))
        self.batch = asyncio.Semaphore(max_num_seqs)

    async def generate(
        self, request: GenerationRequest, *, on_text: TextSink | None = None
    ) -> Completion:
        """See `TextEngine`; nothing is kept of what was asked."""
        async with self.batch:
            await asyncio.sleep(float(request.question.partition(" ")[0]))
        self.history.clear()
        return await super().generate(request, on_text=on_text)


def _seed(request: GenerationRequest) -> str:
    return f"So it is {request.seed}.\n--> {request.seed} END"


class Paced:
    """The factory, for the replica's process."""

    def __call__(self, config: EndpointConfig) -> PacedEngine:
        return PacedEngine(max_num_seqs=config.engine.max_num_seqs)


class OneTriple:
    """A source of one triple without files."""

    def wanted(self) -> Wanted:
        """See `TripleSource`."""
        return Wanted(address=TRIPLE)

    def earlier(self) -> list[Wanted]:
        """See `TripleSource`."""
        return []

    def fetch(self, address: str) -> TripleFiles:
        """See `TripleSource`."""
        return TripleFiles(address=address, folders={}, config=demo().endpoint())
