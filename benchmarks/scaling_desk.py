"""The desk's actor under 1, 8 and 64 callers, and a ledger of a million responses.

Callers are real windows with a fake teacher that answers at once (`InstantTeacher`), each with its
own name at the desk, several in one process. What the desk's process computes for a request says
how many it can grant on a core of its own; what came through says what two shared cores gave.
"""

import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
import scaling_teach
from scaling_teach import MIB, TEXT, InstantTeacher, Timed, make_config

from lorid.artifacts.local import LocalStore
from lorid.artifacts.shards import shard_keys
from lorid.artifacts.store import open_store
from lorid.config import RunConfig
from lorid.distributed.cluster import connected
from lorid.distributed.teaching import RemoteDesk, policy_of, start_desk
from lorid.teacher.base import Reply, TeacherRequest, Usage
from lorid.teacher.ledger import Ledger, Stored, folder_of, merge_ledger
from lorid.teacher.window import Window

NUM_PROCESSES = 4
IN_FLIGHT = 1024
IDENTITY = {"teacher.api.model": "instant", "teacher.sampling.temperature": 0.2}
PROMPT = "You write down the general knowledge behind a worked solution. " * 8


class Callers:
    """Some windows of one process; asks in as many tasks as each has slots, and as many again."""

    def __init__(self, config_json: str, desk: Any, names: Sequence[str]) -> None:
        self.config, self.names = RunConfig.model_validate_json(config_json), names
        self.desk = RemoteDesk(desk)

    async def ask(self, num: int) -> int:
        """Ask `num` different requests by each window; returns how many were answered."""
        return sum(await asyncio.gather(*(self._ask(name, num) for name in self.names)))

    async def _ask(self, name: str, num: int) -> int:
        slots = (await self.desk.join(name)).num_slots
        window = Window(
            desk=self.desk, teacher=InstantTeacher(), worker=name, policy=policy_of(self.config),
            identity=IDENTITY, num_slots=slots,
        )  # fmt: skip
        numbers, num_answered = iter(range(num)), 0

        async def work() -> None:
            nonlocal num_answered
            for number in numbers:
                request = TeacherRequest(prompt=f"{PROMPT}{name} {number}", temperature=0, seed=1)
                stored = await window.respond(request)
                num_answered += stored.reply.text == TEXT

        await asyncio.gather(*(work() for _ in range(2 * slots)))
        return num_answered


def grants(folder: Path, *, callers: int, requests: int) -> dict[str, Any]:
    """One desk, so many callers; asserts that each request was granted and stored once."""
    import ray
    from ray import cloudpickle

    # The workers' processes do not know the folder of the benchmarks.
    for module in (sys.modules[__name__], scaling_teach):
        cloudpickle.register_pickle_by_value(module)
    config = make_config(folder, num=1, store=None, in_flight=IN_FLIGHT, workers=callers)
    config = config.model_copy(update={"name": f"desk-{callers}"})
    with connected():
        desk = start_desk(config)
        names = [f"caller-{number}" for number in range(callers)]
        groups = [group for at in range(NUM_PROCESSES) if (group := names[at::NUM_PROCESSES])]
        actor: Any = ray.remote(Callers)
        workers = [
            actor.options(num_cpus=0.5).remote(config.model_dump_json(), desk, group)
            for group in groups
        ]
        ray.get([worker.ask.remote(0) for worker in workers])
        process, began = _process_of("DeskActor"), time.monotonic()
        cpu = sum(process.cpu_times()[:2])
        each = requests // callers
        answered = sum(ray.get([worker.ask.remote(each) for worker in workers]))
        seconds, cpu = time.monotonic() - began, sum(process.cpu_times()[:2]) - cpu
        stats: Any = ray.get(desk.read_stats.remote())
        for one in [*workers, desk]:
            ray.kill(one)
    assert answered == stats.num_responses == stats.num_known == each * callers
    return {
        "callers": callers,
        "processes": len(groups),
        "requests": answered,
        "grants_per_s": round(answered / seconds),
        "desk_cpu_us_a_request": round(cpu / answered * 1e6, 1),
        "grants_per_s_of_a_whole_core": round(answered / cpu),
    }


def _process_of(name: str) -> psutil.Process:
    found = [one for one in psutil.Process().children(recursive=True)
             if name in " ".join(one.cmdline()[:1])]  # fmt: skip
    return found[0]


def large_ledger(folder: Path, *, num: int) -> dict[str, Any]:
    """Write, open and look up in a ledger; asserts that nothing is lost."""
    store, process = LocalStore(folder / "ledger"), psutil.Process()
    before = process.memory_full_info().uss
    ledger = Ledger.opened(store, name="large")
    with Timed() as written:
        asyncio.run(_fill(ledger, num=num))
    grown = process.memory_full_info().uss - before
    del ledger
    with Timed() as opened:
        ledger = Ledger.opened(store, name="large")
    assert len(ledger.lines) == num
    looked = range(0, num, max(1, num // 10_000))
    with Timed() as found:
        assert all(ledger.find(_key(number)) for number in looked)
    size = sum(
        os.path.getsize(folder / "ledger" / key) for key in shard_keys(store, folder_of("large"))
    )
    return {
        "responses": num,
        "mib_on_disk": round(size / MIB),
        "write": written.figures(num),
        "open": opened.figures(num),
        "find": found.figures(len(looked)),
        "grown_mib": round(grown / MIB, 1),
    }


async def _fill(ledger: Ledger, *, num: int) -> None:
    for start in range(0, num, 1000):
        await ledger.add([_stored(number) for number in range(start, min(num, start + 1000))])


def many_shards(store: str, *, num: int) -> dict[str, Any]:
    """As S3 has them: a key for every 64 responses, then merged; asserts that nothing is lost."""
    opened = open_store(store)
    lines = [_stored(number).to_line() for number in range(64)]
    content = b"\n".join(lines)
    with Timed() as written:
        for number in range(num):
            tag = f"{number:08d}".encode()
            key = f"ledgers/many/20260101T000000-0-{number:06d}.jsonl"
            opened.write(key, content.replace(b'"key":"', b'"key":"' + tag))
    with Timed() as merged:
        merge_ledger(opened, "many")
    assert len(shard_keys(opened, folder_of("many"))) == 1
    with Timed() as read:
        assert len(Ledger.opened(opened, name="many").lines) == 64 * num
    return {
        "shards": num,
        "responses": 64 * num,
        "write": written.figures(64 * num),
        "merge": merged.figures(64 * num),
        "open_merged": read.figures(64 * num),
    }


def _key(number: int) -> str:
    return TeacherRequest(prompt=str(number), temperature=0, seed=1).key({})


def _stored(number: int) -> Stored:
    usage = Usage(input_tokens=200, output_tokens=90)
    reply = Reply(text=TEXT, finish_reason="stop", usage=usage, model="instant")
    return Stored(key=_key(number), ask=1, settings=IDENTITY, reply=reply, at="2026-01-01")
