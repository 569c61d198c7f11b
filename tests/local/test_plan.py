"""The plan before a run: what is counted, what is estimated, and what is there already."""

import json
from pathlib import Path

import pytest
import torch

from lorid.artifacts.store import open_store
from lorid.config import parse_config
from lorid.distributed.inputs import teacher_inputs
from lorid.distributed.planning import (
    TYPICAL_RULES,
    Assumed,
    evaluation_plan,
    plan_run,
    token_counter,
)
from lorid.distributed.preparation import load_split
from lorid.distributed.teaching import manner_of
from lorid.errors import TrainingError
from lorid.jsonl import write_jsonl
from lorid.method.knowledge import TEACHER_TEMPLATE
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.presets import demo
from lorid.sections import PriceConfig
from lorid.teacher.asking import request_for
from lorid.teacher.base import Reply, Usage
from lorid.teacher.ledger import Ledger, Stored
from lorid.teacher.prices import cost_of, projected
from lorid.training.adapters import load_tokenizer
from lorid.training.batches import encode_examples
from lorid.training.track import RoleTrack

ROWS = Path(__file__).parents[1] / "data" / "metamath_rows.jsonl"
API = {
    "kind": "api",
    "api": {"model": "some-model", "requests_per_minute": 2, "tokens_per_minute": 10_000_000},
    "prices": {"input_per_million": 1000.0, "output_per_million": 2000.0},
    "max_asks": 3,
    "gate": {"max_rules": 9},
}


def config_of(folder, **sections):
    return parse_config(
        json.dumps({"store": str(folder / "store"), "teacher": API, **sections}), preset="demo"
    )


async def stored_answers(config, texts):
    """A ledger with these answers to the first ask of the first problems."""
    ledger = Ledger.opened(open_store(config.store), name=config.name)
    manner = manner_of(config, template=TEACHER_TEMPLATE)
    problems = load_split(config, "train").problems
    replies = []
    for problem, text in zip(problems, texts, strict=False):
        request = request_for(problem, manner=manner, ask=1)
        reply = Reply(text=text, finish_reason="stop", usage=Usage(), model="some-model")
        key = request.key(teacher_inputs(config))
        replies.append(Stored(key=key, ask=1, settings={}, reply=reply))
    await ledger.add(replies)


async def test_what_the_ledger_answers_is_not_planned_again(tmp_path):
    config = config_of(tmp_path, data={"num_train": 12, "num_test": 7})
    before = plan_run(config, store=open_store(config.store), assumed=Assumed()).teacher
    assert (before.num_sources, before.num_answered, before.num_requests) == (12, 0, 12)
    assert before.num_requests_at_most == 36
    good = json.dumps({"output": ["Add the parts of it.", "Halve the sum at last."]})
    await stored_answers(config, [good] * 4 + ["no JSON"])
    after = plan_run(config, store=open_store(config.store), assumed=Assumed()).teacher
    assert (after.num_answered, after.num_requests) == (4, 8)
    # The one whose answer was useless has been asked once.
    assert after.num_requests_at_most == 7 * 3 + 2
    assert after.price < before.price
    # A changed gate judges the stored answers anew, without asking for them.
    strict = {**API, "gate": {"min_rules": 3}}
    changed = config_of(tmp_path, data={"num_train": 12, "num_test": 7}, teacher=strict)
    again = plan_run(changed, store=open_store(config.store), assumed=Assumed()).teacher
    assert (again.num_requests, again.num_requests_at_most) == (12, 7 * 3 + 5 * 2)


def test_price_and_time_follow_from_the_tokens_and_the_limits(tmp_path):
    config = config_of(tmp_path, data={"num_train": 10, "num_test": 5})
    store = open_store(config.store)
    teacher = plan_run(config, store=store, assumed=Assumed(output_tokens=100)).teacher
    assert teacher.output_tokens == 1000
    assert teacher.price == pytest.approx((teacher.prompt_tokens * 1000 + 1000 * 2000) / 1e6)
    assert teacher.price_at_most > 3 * teacher.price
    assert teacher.seconds_at_least == pytest.approx(300)
    assert teacher.prompt_tokens_by == "characters / 4"


def test_augmented_problems_are_asked_once_and_trained_on_all(tmp_path):
    gold = [
        {
            "question": "Ana has 12 shells. She finds 5 more. How many shells does she have?",
            "answer": "12 + 5 = 17\n#### 17",
        }
    ]
    write_jsonl(tmp_path / "gold.jsonl", gold)
    write_jsonl(tmp_path / "tested.jsonl", [{"question": "1 + 1?", "answer": "2\n#### 2"}])
    data = {
        "source": "jsonl", "train": str(tmp_path / "gold.jsonl"),
        "test": str(tmp_path / "tested.jsonl"), "augmented": str(ROWS), "num_train": None,
    }  # fmt: skip
    config = config_of(tmp_path, data=data)
    plan = plan_run(config, store=open_store(config.store), assumed=Assumed(train_tokens_per_s=10))
    assert (plan.teacher.num_problems, plan.teacher.num_requests) == (3, 1)
    assert {role.num_sequences for role in plan.training.roles} == {3}
    assert plan.training.gpu_hours == pytest.approx(plan.training.tokens / 10 / 3600)
    assert plan.training.tokens == sum(role.tokens for role in plan.training.roles)


@pytest.mark.parametrize(
    "training",
    [
        {"validation_fraction": 0.25, "sequences_per_step": 4},
        {"tokens_per_step": 600, "num_epochs": 1.5},
        {"tokens_per_step": 600, "validation_fraction": 0.25},
    ],
)
def test_steps_are_those_that_training_takes(tmp_path, training):
    config = config_of(tmp_path, data={"num_train": 40, "num_test": 7}, training=training)
    planned = plan_run(config, store=open_store(config.store), assumed=Assumed()).training
    problems = load_split(config, "train").problems
    enriched = [EnrichedProblem(problem=one, knowledge=TYPICAL_RULES) for one in problems]
    tokenizer = load_tokenizer(config.student)
    for role in planned.roles:
        examples, _ = encode_examples(
            enriched, tokenizer=tokenizer, family=config.student.family, role=Role(role.role),
            max_tokens=10_000,
        )  # fmt: skip
        track = RoleTrack(
            Role(role.role), examples=examples, weights=[torch.nn.Parameter(torch.zeros(1))],
            training=config.training, seed=config.seed,
        )  # fmt: skip
        assert role.num_sequences == len(track.examples)
        if config.training.tokens_per_step is None:
            assert role.num_steps == track.num_steps
        else:
            # The plan's texts are without the chat template's few tokens.
            assert 0.8 * track.num_steps <= role.num_steps <= track.num_steps


def test_a_fraction_that_leaves_nothing_to_validate_on_is_said_by_the_plan(tmp_path):
    config = config_of(
        tmp_path, data={"num_train": 2, "num_test": 2}, training={"validation_fraction": 1e-6}
    )
    with pytest.raises(TrainingError, match="holds out 0 of 2 examples; change it"):
        plan_run(config, store=open_store(config.store), assumed=Assumed())


def test_generations_lie_between_one_round_and_all_rounds():
    config = demo()
    for rate, expected in ((1.0, "num_generations_at_least"), (0.0, "num_generations_at_most")):
        plan = evaluation_plan(config, num_questions=100, assumed=Assumed(agreement_rate=rate))
        assert plan.num_generations == getattr(plan, expected)
    assert plan.num_generations_at_least == 3 * 100 + 100
    assert plan.num_generations_at_most == 3 * 20 * 100 + 100
    plan = evaluation_plan(config, num_questions=100, assumed=Assumed(agreement_rate=0.5))
    assert 600 <= plan.num_generations <= 701


@pytest.mark.parametrize(
    ("feedback", "at_least", "at_most"),
    [
        ({"rule": "intuitive-only"}, 1, 1),
        ({"rule": "deep-only"}, 2, 2),
        ({"rule": "majority", "max_rounds": 5}, 15, 15),
        ({"rule": "same-round", "max_rounds": 5}, 3, 15),
        # Four votes of one answer are the fewest that make 0.95 of it: two rounds.
        ({"rule": "bayes", "max_rounds": 5}, 6, 15),
        ({"rule": "paper", "max_rounds": 1}, 3, 3),
    ],
)
def test_each_rule_is_charged_what_it_draws(feedback, at_least, at_most):
    config = parse_config(
        json.dumps({"feedback": feedback, "evaluation": {"grade_base": False}}), preset="demo"
    )
    for rate in (0.0, 0.3, 1.0):
        plan = evaluation_plan(config, num_questions=10, assumed=Assumed(agreement_rate=rate))
        assert plan.rule == feedback["rule"]
        bounds = (plan.num_generations_at_least, plan.num_generations_at_most)
        assert bounds == (10 * at_least, 10 * at_most)
        assert bounds[0] <= plan.num_generations <= bounds[1]


def test_questions_and_rule_of_the_evaluation_itself_are_planned(tmp_path):
    rows = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}"} for n in range(9)]
    write_jsonl(tmp_path / "own.jsonl", rows)
    evaluation = {
        "questions": str(tmp_path / "own.jsonl"), "num_questions": 6, "draw_by": "majority",
        "grade_base": False,
    }  # fmt: skip
    config = config_of(
        tmp_path, data={"num_train": 4, "num_test": 2}, evaluation=evaluation,
        feedback={"max_rounds": 4},
    )  # fmt: skip
    plan = plan_run(config, store=open_store(config.store), assumed=Assumed()).evaluation
    assert (plan.num_questions, plan.num_generations) == (6, 6 * 12)


def test_tokens_are_counted_by_the_tokenizer_that_is_at_hand():
    count, by = token_counter(demo().student)
    assert "tokenizer" in by
    assert count(["12345678", "1234"]) == 12  # this one takes digits one by one
    count, by = token_counter(None)
    assert (count(["12345678", "1234"]), by) == (3, "characters / 4")


def test_cached_input_and_batches_cost_what_the_config_says():
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_input_tokens=400_000)
    prices = PriceConfig(input_per_million=2, output_per_million=8)
    assert cost_of(usage, prices=prices) == pytest.approx(6)
    cached = prices.model_copy(update={"cached_input_per_million": 0.5, "batch_discount": 0.25})
    assert cost_of(usage, prices=cached) == pytest.approx(1.2 + 0.2 + 4)
    assert cost_of(usage, prices=cached, is_batch=True) == pytest.approx(5.4 / 4)
    assert projected(spent=2, num_done=5, num_all=20) == pytest.approx(8)
    assert projected(spent=0, num_done=0, num_all=20) is None


def test_the_command_prints_the_plan_or_its_json(lorid, tmp_path):
    base = ["plan", "--preset", "demo", "--set", f"store={tmp_path}", "--set", "data.num_train=10",
            "--set", "data.num_test=4"]  # fmt: skip
    code, out, _ = lorid(*base)
    assert code == 0
    assert "10 requests for 10 problems" in out
    assert "GPU-hours are not estimated" in out
    code, out, _ = lorid(*base, "--train-tokens-per-s", "1000", "--json")
    plan = json.loads(out)
    assert (code, plan["teacher"]["num_requests"]) == (0, 10)
    assert plan["training"]["gpu_hours"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_push_uploads_the_files_as_a_private_data_set(lorid, tmp_path, monkeypatch):
    import huggingface_hub

    from lorid.artifacts.records import publish

    calls = []

    class FakeHub:
        """Stands for the hub, which no test reaches."""

        def create_repo(self, repo_id, **options):
            calls.append((repo_id, options["repo_type"], options["private"]))

        def upload_folder(self, *, repo_id, repo_type, folder_path):
            calls.append(sorted(path.name for path in Path(folder_path).iterdir()))

    monkeypatch.setattr(huggingface_hub, "HfApi", FakeHub)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "README.md").write_text("card")
    record = publish(open_store(str(tmp_path / "store")), tmp_path / "files", kind="knowledge",
                     name="run", inputs={"a": 1})  # fmt: skip
    code, out, _ = lorid(
        "knowledge", "push", record.address, "--to", "org/rules", "--store", str(tmp_path / "store")
    )
    assert (code, out.strip()) == (0, "https://huggingface.co/datasets/org/rules")
    assert calls == [("org/rules", "dataset", True), ["README.md"]]
