"""Layouts without a cluster: what Serve is told, what is refused, how a role's engine has room."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from scripting import TRIPLE, NoStore, script, small_config, texts
from triple_files import BASE, publish_triple, settings_on, write_adapter, write_base

from lorid.artifacts.aliases import promote
from lorid.artifacts.copies import make_once
from lorid.artifacts.records import load_record
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import read_manifest
from lorid.config import change_endpoint, load_config
from lorid.distributed.demands import demands_of
from lorid.distributed.deployments import app_of_run
from lorid.distributed.roles import RoleEngine
from lorid.distributed.routing import QuestionRouter, ranking
from lorid.distributed.scaling import role_options, student_options
from lorid.distributed.sources import StoredTriple
from lorid.distributed.student import StudentEngine
from lorid.engines.base import GenerationRequest
from lorid.engines.scripted import ScriptedEngine
from lorid.engines.settings import engine_arguments
from lorid.engines.vllm import VllmEngine
from lorid.errors import AdapterIdle, AdapterMismatch, ConfigError
from lorid.method.roles import Role

LAYOUTS = ("shared", "split", "merged")
QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"


def config_of(*lines: str):
    return change_endpoint(small_config(), lines, source="test")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """The node's copies go to this test's folder."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


# What Serve is told ---------------------------------------------------------------------------


def test_an_engine_of_several_gpus_asks_one_node_for_all_of_them():
    config = config_of("engine.tensor_parallel_size=4", "engine.num_gpus=1", "engine.num_cpus=6")
    options = student_options(config)
    asked = options["ray_actor_options"]
    assert (asked["num_cpus"], asked["num_gpus"]) == (6, 4)
    # A placement group would make vLLM choose another executor; one actor is on one node anyway.
    assert "placement_group_bundles" not in options
    arguments = engine_arguments(
        config.engine, student=config.student, seed=1, num_triples=1, max_rank=8
    )
    assert (arguments["tensor_parallel_size"], arguments["distributed_executor_backend"]) == (
        4, "mp",
    )  # fmt: skip


@pytest.mark.parametrize("layout", ["split", "merged"])
def test_roles_apart_have_the_replicas_and_the_gpus_and_the_driver_has_none(layout):
    config = config_of(
        f"serving.layout={layout}", "serving.num_replicas=3", "engine.num_gpus=1",
        "engine.tensor_parallel_size=2",
    )  # fmt: skip
    driver = student_options(config)
    assert (driver["num_replicas"], driver["ray_actor_options"]["num_gpus"]) == (1, 0)
    names = set()
    for role in Role:
        options = role_options(config, role)
        names.add(options["name"])
        assert (options["num_replicas"], options["ray_actor_options"]["num_gpus"]) == (3, 2)
    assert names == {"IREngine", "KGEngine", "DREngine"}


def test_several_drivers_share_the_room_of_the_engines():
    lines = [
        "serving.layout=split", "serving.num_replicas=5", "serving.num_drivers=2",
        "serving.max_concurrent_questions=8", "evaluation.grade_base=false",
    ]  # fmt: skip
    run = load_config(None, preset="demo", overrides=lines)
    (driver,) = [one for one in demands_of(run) if one.what == "mutual feedback"]
    assert driver.count == 2
    assert student_options(run.endpoint())["num_replicas"] == 2
    engine = ScriptedEngine(script(intuitive=texts("1"), deep=texts("1")))
    source = NoStore(small_config())
    student = StudentEngine(run.endpoint().model_dump_json(), lambda _: engine, source, False)
    assert student.slots.num_slots == 3 * 8


@pytest.mark.parametrize("layout", LAYOUTS)
def test_autoscaling_is_that_of_the_engines(layout):
    config = config_of(
        f"serving.layout={layout}", "serving.max_concurrent_questions=48", "engine.max_num_seqs=96",
        "serving.autoscaling={min_replicas: 0, max_replicas: 5, downscale_delay_s: 60}",
    )  # fmt: skip
    is_shared = layout == "shared"
    options = student_options(config) if is_shared else role_options(config, Role.DEEP_REASONER)
    scaling = options["autoscaling_config"]
    assert "num_replicas" not in options
    assert (scaling.min_replicas, scaling.max_replicas, scaling.downscale_delay_s) == (0, 5, 60)
    assert scaling.initial_replicas == 0
    assert scaling.target_ongoing_requests == (48 if is_shared else 96)
    assert config.serving.max_questions == 5 * 48 + config.serving.max_queued_questions
    assert config.serving.may_sleep


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["serving.autoscaling={min_replicas: 3, max_replicas: 2}"], "less than min_replicas 3"),
        (["serving.autoscaling={initial_replicas: 3}"], "not within min_replicas 1"),
        (["serving.autoscaling={target_ongoing_requests: 0}"], "target_ongoing_requests"),
        (["serving.autoscaling={min_replicas: 1}", "serving.num_replicas=2"], "leave that out"),
        (["serving.layout=apart"], "shared"),
        (["serving.num_drivers=2"], "each engine drives its own"),
        (["engine.tensor_parallel_size=2", "engine.num_gpus=0.5"], "on one GPU"),
        (["engine.num_gpus=2"], "on one GPU"),
    ],
)
def test_what_contradicts_itself_is_one_clear_error(lines, named):
    with pytest.raises(ConfigError, match=named):
        config_of(*lines)


def test_merged_weights_leave_no_base_to_grade():
    merged = ["serving.layout=merged"]
    with pytest.raises(ConfigError, match="grade_base=false"):
        load_config(None, preset="demo", overrides=merged)
    config = load_config(
        None, preset="demo", overrides=[*merged, "evaluation.grade_base=false",
                                        "serving.num_replicas=2"],
    )  # fmt: skip
    counts = {one.what: one.count for one in demands_of(config) if one.stage == "evaluate"}
    assert counts == {"ingress": 1, "mutual feedback": 1, "role's engine": 6}


def test_merged_cannot_follow_an_alias_and_says_what_to_do(tmp_path):
    store = open_store(str(tmp_path / "store"))
    made = publish_triple(store, tmp_path / "made", base=write_base(tmp_path / "base"))
    promote(store, "production", made.address)
    overrides = {"serving.layout": "merged"}
    with pytest.raises(ConfigError, match=r"STORE#NAME/VERSION, and deploy again"):
        app_of_run(f"{store.uri}@production", overrides=overrides)
    assert app_of_run(f"{store.uri}#demo", overrides=overrides)
    assert app_of_run(f"{store.uri}@production", overrides={"serving.layout": "split"})


# Routing --------------------------------------------------------------------------------------


def test_a_replica_that_goes_moves_only_its_own_questions():
    replicas = ["a", "b", "c"]
    questions = [f"question {n}" for n in range(300)]
    before = {one: ranking(one, replicas)[0] for one in questions}
    assert all(list(before.values()).count(one) > 60 for one in replicas)
    for one in questions:
        after = ranking(one, ["c", "a"])[0]
        assert after == before[one] or before[one] == "b"


async def test_a_thousand_replicas_are_not_tried_one_after_the_other():
    ids = [f"replica {n}" for n in range(1000)]
    replicas = [SimpleNamespace(replica_id=SimpleNamespace(unique_id=one)) for one in ids]
    request = GenerationRequest(question="?", role=Role.DEEP_REASONER, triple="t", seed=1)
    asked = SimpleNamespace(args=[request], routing_context=SimpleNamespace())
    router = object.__new__(QuestionRouter)  # the choice needs nothing of Serve's
    tried = await router.choose_replicas(replicas, asked)
    assert len(tried) <= 10
    first, *_ = tried
    assert [one.replica_id.unique_id for one in first] == ranking("?", ids)[:1]
    assert len({one.replica_id.unique_id for group in tried for one in group}) == 1000


# Refusals -------------------------------------------------------------------------------------


class NoVllm(VllmEngine):
    """The real engine but for vLLM itself, whose place a fake takes that holds any adapter."""

    async def _start(self) -> None:
        self.base = BASE
        self.engine = FakeAsyncLLM()


class FakeAsyncLLM:
    async def list_loras(self):
        return []

    async def add_lora(self, request):
        return True

    async def remove_lora(self, number):
        return True

    def shutdown(self):
        pass


def loader(layout: str, config) -> NoVllm:
    """The engine of all roles, or of one."""
    return NoVllm(
        student=config.student, sampling=config.sampling, engine=config.engine, num_triples=2,
        max_rank=4, num_roles=1 if layout == "split" else 3,
    )  # fmt: skip


def broken(tmp_path, what: str):
    """A deep reasoner's adapter that does not fit `BASE`."""
    folder = write_adapter(tmp_path / what, rank=16 if what == "rank" else 2)
    if what in ("targets", "shapes"):
        path = folder / "adapter_config.json"
        settings = json.loads(path.read_text())
        changes = {"targets": {"target_modules": ["q_proj", "o_proj"]}, "shapes": {"r": 4}}[what]
        path.write_text(json.dumps(settings | changes))
    return folder


@pytest.mark.parametrize("layout", ["shared", "split"])
@pytest.mark.parametrize(
    ("what", "named"),
    [("targets", "names o_proj, q_proj"), ("shapes", "has shape"), ("rank", "max_adapter_rank=16")],
)
async def test_an_adapter_that_does_not_fit_is_refused_with_the_reason(
    tmp_path, layout, what, named
):
    config = settings_on(write_base(tmp_path / "base"))
    engine = loader(layout, config)
    roles = Role if layout == "shared" else [Role.DEEP_REASONER]
    good = {role: write_adapter(tmp_path / role) for role in roles}
    await engine.load("good", adapters=good, sampling=config.sampling)
    bad = {**good, Role.DEEP_REASONER: broken(tmp_path, what)}
    with pytest.raises(AdapterMismatch, match=named):
        await engine.load("bad", adapters=bad, sampling=config.sampling)
    assert list(engine.triples) == ["good"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", ["base", "family"])
async def test_another_base_or_family_is_refused_in_every_layout(tmp_path, layout, what):
    store = open_store(str(tmp_path / "store"))
    base = write_base(tmp_path / "base")
    mine = publish_triple(store, tmp_path / "mine", base=base)
    other = publish_triple(
        store, tmp_path / "other", name="other",
        base=write_base(tmp_path / "wider", vocab_size=7) if what == "base" else base,
        family="qwen" if what == "family" else "tokenizer",
    )  # fmt: skip
    manifest = read_manifest(store, load_record(store, mine.address))
    source = StoredTriple(store=store.uri, base=manifest.base, address=other.address)
    config = manifest.endpoint(store=store.uri).model_dump_json()
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    if layout == "shared":
        started = StudentEngine(config, lambda _: engine, source, False).ready()
    else:
        started = RoleEngine(config, Role.DEEP_REASONER, lambda _: engine, source, 2).take(
            other.address
        )
    with pytest.raises(AdapterMismatch, match="another base needs a new deployment"):
        await started
    assert not engine.loaded


def test_merged_weights_are_made_once_a_node(tmp_path):
    made = []

    def make(folder):
        made.append(folder)
        folder.mkdir()

    folder = tmp_path / "cache" / "merged"
    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(lambda _: make_once(folder, make), range(4)))
    assert made == [folder]
    assert {copy.folder for copy in copies} == {folder}


def test_merged_weights_that_are_there_do_not_wait_for_others_to_be_made(tmp_path):
    cache = tmp_path / "cache"
    mine = make_once(cache / "mine", lambda folder: folder.mkdir())
    seen = []

    def make(folder):
        with ThreadPoolExecutor(1) as pool:
            seen.append(pool.submit(make_once, mine.folder, make).result(timeout=30).folder)
        folder.mkdir()

    make_once(cache / "another", make)
    assert seen == [mine.folder]


# A role's engine ------------------------------------------------------------------------------


class AnyTriple(NoStore):
    """A source of every triple that is named."""


def role_engine(engine: ScriptedEngine) -> RoleEngine:
    config = small_config().endpoint().model_dump_json()
    return RoleEngine(config, "deep_reasoner", lambda _: engine, AnyTriple(), 2)


def asking(triple: str) -> GenerationRequest:
    return GenerationRequest(question=QUESTION, role=Role.DEEP_REASONER, triple=triple)


async def test_a_third_triple_waits_until_one_is_idle_and_takes_its_place():
    go_on = asyncio.Event()

    async def slow(_):
        await go_on.wait()
        return "--> 7 END"

    engine = ScriptedEngine(script(intuitive=texts("7"), deep=slow))
    replica = role_engine(engine)
    first, second = (asyncio.create_task(replica.write(asking(one))) for one in ("a", "b"))
    while engine.num_running < 2:
        await asyncio.sleep(0)
    third = asyncio.create_task(replica.take("c"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert set(engine.loaded) == {"a", "b"}
    go_on.set()
    await asyncio.gather(first, second, third)
    assert len(engine.loaded) == 2
    assert "c" in engine.loaded


async def test_an_idle_adapter_is_refused_by_each_replica_itself_and_leaves_nothing():
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")), idle=["a"])
    replica = role_engine(engine)
    with pytest.raises(AdapterIdle, match="deep_reasoner"):
        await replica.write(asking("a"))
    assert not engine.loaded
    assert not engine.history


async def test_callers_share_the_coming_of_a_triple_even_if_the_first_leaves():
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    replica = role_engine(engine)
    first, second = (asyncio.create_task(replica.write(asking("a"))) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert "7" in (await second).text
    assert len(engine.loaded) == 1


# The whole graph ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_answers_alike(endpoint, layout):
    engine = ScriptedEngine(script(intuitive=texts("3", "7"), deep=texts("5", "7")))
    if layout != "shared":
        # One engine stands for all three here; each of them would hold the triple itself.
        engine.load = _again(engine)
    client = endpoint(engine, serving={"layout": layout})
    status = client.get("/readyz").json()
    assert status["triple"] == TRIPLE
    answer = client.post("/v1/solve", json={"question": QUESTION}).json()
    assert (answer["answer"], answer["num_rounds"], answer["outcome"]) == ("7", 2, "agreed")
    names = {one["id"] for one in client.get("/v1/models").json()["data"]}
    assert ("lorid:base" in names) == (layout != "merged")
    body = {"model": "lorid:base", "messages": [{"role": "user", "content": QUESTION}]}
    status_code = client.post("/v1/chat/completions", json=body).status_code
    assert status_code == (404 if layout == "merged" else 200)


def _again(engine):
    async def load(triple, *, adapters, sampling):
        engine.loaded[triple] = sampling

    return load
