"""One triple after another in a running endpoint, with a real alias and a scripted engine."""

import asyncio
import json
import shutil

import pytest
from triple_files import publish_triple, write_base

from lorid.api import SolveRequest
from lorid.artifacts.aliases import promote, rollback
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest
from lorid.distributed.student import StudentEngine
from lorid.distributed.sources import StoredTriple
from lorid.engines.scripted import ScriptedEngine
from lorid.errors import AdapterIdle, AdapterMismatch, ArtifactError
from lorid.method.roles import Role

QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """The node's copies of triples go to this test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def base(tmp_path):
    return write_base(tmp_path / "base")


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def triples(store, base, tmp_path):
    """Three triples; the first is in production."""
    made = [publish_triple(store, tmp_path / f"made{n}", base=base, seed=n) for n in range(3)]
    promote(store, "production", made[0].address)
    return made


def by_triple(request):
    """The answer is the number of letters of the triple that was asked."""
    return f"--> {request.triple} END"


def engine_of(**changes):
    roles = (Role.INTUITIVE_REASONER, Role.KNOWLEDGE_GENERATOR, Role.DEEP_REASONER, None)
    return ScriptedEngine(dict.fromkeys(roles, by_triple), **changes)


def replica(store, first, engine, *, overrides=()) -> StudentEngine:
    """One replica that follows production; nobody polls but the test."""
    manifest = read_manifest(store, first)
    source = StoredTriple(
        store=store.uri, base=manifest.base, address=first.address, alias="production",
        overrides=overrides,
    )  # fmt: skip
    config = manifest.endpoint(store=store.uri).model_dump_json()
    return StudentEngine(config, lambda _: engine, source, False)


async def solve(student):
    """The triple that is said to have answered; each text must be by it."""
    answered = await student.solve(SolveRequest(question=QUESTION))
    for _, sampled in answered.answer.used:
        assert answered.triple in sampled.text
    return answered.triple


async def test_new_questions_go_to_the_new_triple_and_back_after_a_rollback(store, triples):
    engine = engine_of()
    student = replica(store, triples[0], engine)
    assert await solve(student) == triples[0].address
    promote(store, "production", triples[1].address)
    assert await solve(student) == triples[0].address
    await student.triples.poll()
    assert await solve(student) == triples[1].address
    assert list(engine.loaded) == [triples[1].address]
    rollback(store, "production")
    await student.triples.poll()
    assert await solve(student) == triples[0].address
    assert (await student.status())["triple"] == triples[0].address


async def test_a_question_in_flight_ends_on_its_triple_which_goes_only_then(store, triples):
    go_on, asked = asyncio.Event(), asyncio.Event()
    engine = engine_of()

    async def slow(request):
        asked.set()
        await go_on.wait()
        return f"--> {request.triple} by slow END"

    first = triples[0].address
    student = replica(store, triples[0], engine)
    await student.ready()
    engine.writers[Role.INTUITIVE_REASONER] = slow
    question = asyncio.create_task(solve(student))
    await asked.wait()
    engine.writers[Role.INTUITIVE_REASONER] = by_triple
    promote(store, "production", triples[1].address)
    await student.triples.poll()
    assert await solve(student) == triples[1].address
    assert set(engine.loaded) == {first, triples[1].address}
    assert (await student.status())["draining"] == {first: 1}

    # A third has to wait for room; a move back to the one that drains does not.
    promote(store, "production", triples[2].address)
    await student.triples.poll()
    assert await solve(student) == triples[1].address
    promote(store, "production", first)
    await student.triples.poll()
    assert await solve(student) == first
    promote(store, "production", triples[2].address)
    await student.triples.poll()
    assert await solve(student) == triples[2].address

    go_on.set()
    assert await question == first
    await student.triples.poll()
    assert list(engine.loaded) == [triples[2].address]


async def test_no_question_fails_while_triples_change_under_load(store, triples):
    """Texts give way to each other at random points; the scripted engine fails what is unloaded."""
    engine = engine_of()

    async def yielding(request):
        for _ in range(hash((request.seed, request.role)) % 7):
            await asyncio.sleep(0)
        return f"--> {request.seed} by {request.triple} END"

    for role in Role:
        engine.writers[role] = yielding
    student = replica(store, triples[0], engine)
    done = asyncio.Event()
    seen: set[str] = set()

    async def ask_on():
        while not done.is_set():
            seen.add(await solve(student))

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(ask_on())
        for number in range(1, 7):
            wanted = triples[number % 3].address
            promote(store, "production", wanted)
            while student.triples.status()["triple"] != wanted:
                await student.triples.poll()
        done.set()
    assert seen == {triple.address for triple in triples}


@pytest.mark.parametrize("what", ["idle", "unfit"])
async def test_a_bad_triple_is_refused_with_the_reason_and_the_old_one_serves(store, triples, what):
    bad = triples[1].address
    engine = engine_of(**{what: [bad]})
    student = replica(store, triples[0], engine)
    await student.ready()
    promote(store, "production", bad)
    await student.triples.poll()
    status = await student.status()
    assert (status["triple"], status["refused"]) == (triples[0].address, bad)
    assert {"idle": "like the base", "unfit": "does not fit"}[what] in status["refused_because"]
    assert await solve(student) == triples[0].address
    assert list(engine.loaded) == [triples[0].address]

    # It is not tried again by itself, but when somebody promotes it again.
    engine.idle.clear()
    engine.unfit.clear()
    await student.triples.poll()
    assert await solve(student) == triples[0].address
    promote(store, "production", bad)
    await student.triples.poll()
    assert await solve(student) == bad
    assert (await student.status())["refused"] is None


async def test_another_base_or_family_is_refused_and_said_clearly(store, triples, tmp_path, base):
    other = write_base(tmp_path / "other", vocab_size=7)
    strangers = [
        publish_triple(store, tmp_path / "a", base=other, name="stranger"),
        publish_triple(store, tmp_path / "b", base=base, name="stranger", family="qwen"),
    ]
    student = replica(store, triples[0], engine_of())
    await student.ready()
    for stranger in strangers:
        promote(store, "production", stranger.address)
        await student.triples.poll()
        status = await student.status()
        assert status["refused"] == stranger.address
        assert "another base needs a new deployment" in status["refused_because"]
        assert await solve(student) == triples[0].address


async def test_a_triple_whose_files_changed_is_refused(store, triples):
    student = replica(store, triples[0], engine_of())
    await student.ready()
    entry = next(one for one in triples[1].files if one.path.endswith(".safetensors"))
    store.write(f"blobs/{entry.sha256}", b"changed")
    promote(store, "production", triples[1].address)
    await student.triples.poll()
    status = await student.status()
    assert status["triple"] == triples[0].address
    assert "differs from its record" in status["refused_because"]


async def test_a_store_that_does_not_answer_changes_nothing_and_is_asked_again(
    store, triples, monkeypatch
):
    student = replica(store, triples[0], engine_of())
    await student.ready()
    promote(store, "production", triples[1].address)

    def fail(*_, **__):
        raise ArtifactError("the server answered 503")

    with monkeypatch.context() as patch:
        patch.setattr("lorid.distributed.sources.current_entry", fail)
        await student.triples.poll()
    assert "503" in (await student.status())["trouble"]
    assert await solve(student) == triples[0].address
    with monkeypatch.context() as patch:
        patch.setattr("lorid.artifacts.copies.fetch", fail)
        await student.triples.poll()
    assert (await student.status())["refused"] is None
    assert await solve(student) == triples[0].address
    await student.triples.poll()
    assert await solve(student) == triples[1].address
    assert (await student.status())["trouble"] is None


async def test_a_replica_that_starts_on_a_bad_triple_takes_the_one_before(store, triples):
    promote(store, "production", triples[1].address)
    promote(store, "production", triples[2].address)
    engine = engine_of(idle=[triples[2].address])
    student = replica(store, triples[0], engine)
    status = await student.ready()
    assert (status["triple"], status["refused"]) == (triples[1].address, triples[2].address)
    assert list(engine.loaded) == [triples[1].address]
    everyone = [triple.address for triple in triples]
    with pytest.raises(AdapterIdle, match="like the base"):
        await replica(store, triples[0], engine_of(idle=everyone)).ready()


async def test_a_first_start_that_fails_is_tried_again(store, triples):
    engine = engine_of(unfit=[triple.address for triple in triples])
    student = replica(store, triples[0], engine)
    with pytest.raises(AdapterMismatch):
        await solve(student)
    engine.unfit.clear()
    assert await solve(student) == triples[0].address


async def test_questions_that_arrive_during_the_start_share_it_even_if_the_first_leaves(
    store, triples
):
    engine = engine_of()
    student = replica(store, triples[0], engine)
    first, second = (asyncio.create_task(solve(student)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == triples[0].address
    assert first.cancelled() or first.done()
    assert list(engine.loaded) == [triples[0].address]
    assert student.triples.status()["draining"] == {}


async def test_a_triple_brings_its_own_defaults_under_the_endpoint_s_changes(
    store, triples, base, tmp_path
):
    cooler = publish_triple(store, tmp_path / "cooler", base=base, seed=7, temperature=0.3)
    engine = engine_of()
    student = replica(store, triples[0], engine, overrides=["sampling.top_k=5"])
    await student.ready()
    promote(store, "production", cooler.address)
    await student.triples.poll()
    (sampling,) = engine.loaded.values()
    assert (sampling.temperature, sampling.top_k) == (0.3, 5)


async def test_following_polls_by_itself(store, triples):
    engine = engine_of()
    student = replica(store, triples[0], engine)
    student.triples.poll_s = 0.01
    await student.ready()
    promote(store, "production", triples[1].address)
    while await solve(student) != triples[1].address:
        await asyncio.sleep(0.01)
    await student.triples.aclose()
    shutil.rmtree(store.uri)
    assert json.dumps(await student.status())
