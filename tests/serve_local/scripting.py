"""What the scripted engine says in these tests."""

import uuid
from typing import ClassVar

from lorid.config import EndpointConfig, RunConfig
from lorid.distributed.sources import TripleFiles, Wanted
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role
from lorid.presets import demo


def texts(*answers: str | None) -> list[str]:
    """What a reasoner would write for each answer; None writes no answer."""
    return ["I do not know" if one is None else f"So it is.\n--> {one} END" for one in answers]


def script(*, intuitive: list[str], deep: list[str], base: list[str] | None = None):
    """A script of all roles."""
    return {
        Role.INTUITIVE_REASONER: intuitive,
        Role.KNOWLEDGE_GENERATOR: ["To find a total, add."],
        Role.DEEP_REASONER: deep,
        None: base or texts("0"),
    }


def small_config(**feedback: object) -> RunConfig:
    """The demo's config with three rounds at most, and other changes to its feedback."""
    config = demo()
    changes = {"max_rounds": 3, **feedback}
    return config.model_copy(update={"feedback": config.feedback.model_copy(update=changes)})


class Prepared:
    """A factory that survives Serve's copy of a deployment's arguments and still gives `engine`."""

    engines: ClassVar[dict[str, ScriptedEngine]] = {}

    def __init__(self, engine: ScriptedEngine) -> None:
        self.key = uuid.uuid4().hex
        self.engines[self.key] = engine

    def __call__(self, _: EndpointConfig) -> ScriptedEngine:
        return self.engines[self.key]


TRIPLE = "triple/demo/0123456789ab"


class NoStore:
    """A source of one triple that has no files: the scripted engine needs none."""

    def __init__(self, config: EndpointConfig | None = None) -> None:
        self.config = config or small_config()

    def wanted(self) -> Wanted:
        return Wanted(address=TRIPLE)

    def earlier(self) -> list[Wanted]:
        return []

    def fetch(self, address: str) -> TripleFiles:
        return TripleFiles(address=address, folders={}, config=self.config.endpoint())
