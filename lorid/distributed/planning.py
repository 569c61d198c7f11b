"""What a run will take, before anything is spent: requests, tokens, price, GPU-hours, generations.

    plan = plan_run(config, assumed=Assumed())
    plan.teacher.num_requests, plan.teacher.price

Problems, source questions and requests are counted; what store and ledger hold already is not
counted again. Steps are those of all problems: what is set aside or too long takes none.
What depends on texts that do not exist yet, or on a machine that was not measured, is named an
estimate and rests on `Assumed`.
"""

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any, TypeVar

from lorid.artifacts.enriched import read_enriched
from lorid.artifacts.records import Record, fetch, find
from lorid.artifacts.store import Sweepable
from lorid.config import ModelConfig, RunConfig, TeacherConfig
from lorid.distributed.inputs import data_inputs, knowledge_inputs, teacher_inputs
from lorid.distributed.preparation import iter_split, load_questions, read_groups, write_splits
from lorid.method.knowledge import teacher_prompt
from lorid.method.problems import EnrichedProblem, Problem
from lorid.method.roles import Role, join_knowledge, role_target, user_turn
from lorid.method.sources import SourceGroups, source_of
from lorid.method.stopping import Tally, fewest_rounds_to_come
from lorid.sections import ApiConfig
from lorid.teacher.asking import Manner, judge, request_for
from lorid.teacher.base import CHARS_PER_TOKEN, Usage
from lorid.teacher.ledger import Ledger
from lorid.teacher.prices import cost_of
from lorid.training.steps import held_out, plan_steps

SAMPLED_TEXTS = 1000
BY_CHARACTERS = f"characters / {CHARS_PER_TOKEN}"
# About as long as the published rules: 194 characters on average for GSM8K, 347 for MATH.
TYPICAL_RULES = ("To find the quantity for a period, divide the given amount by the fraction.",) * 3
T = TypeVar("T")
Count = Callable[[Sequence[str]], int]


@dataclass(frozen=True, kw_only=True)
class Assumed:
    """What no config can know.

    `output_tokens` of an answer of the teacher: the published rules of MATH are 373 characters of
    JSON on average, those of GSM8K 215; a model that thinks first writes many times that.
    `train_tokens_per_s` of one GPU, None when it was not measured. `agreement_rate`: how often a
    round ends a question.
    """

    output_tokens: int = 90
    train_tokens_per_s: float | None = None
    agreement_rate: float = 0.5


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """Requests of the teacher; `price` is an estimate, `price_at_most` what the limits allow."""

    num_problems: int
    num_sources: int
    num_answered: int
    num_requests: int
    num_requests_at_most: int
    prompt_tokens: int
    prompt_tokens_by: str
    output_tokens: int
    output_tokens_by: str
    price: float | None = None
    price_at_most: float | None = None
    currency: str | None = None
    max_cost: float | None = None
    seconds_at_least: float | None = None


@dataclass(frozen=True, kw_only=True)
class RolePlan:
    """One role's training: steps, and estimated tokens over all epochs."""

    role: str
    num_sequences: int
    num_epochs: float
    num_steps: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The three roles; GPU-hours are None while no rate is given."""

    roles: Sequence[RolePlan]
    tokens: int
    tokens_by: str
    tokens_per_s: float | None
    gpu_hours: float | None


@dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
    """Generations of the evaluation: bounds, and an estimate by the assumed rate of agreement.

    They are those that the rule draws; rounds that start early (`feedback.max_wave_rounds`) may
    draw more and waste it.
    """

    rule: str
    num_questions: int
    num_generations_at_least: int
    num_generations_at_most: int
    num_generations: int
    agreement_rate: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All of it."""

    run: str
    teacher: TeacherPlan
    training: TrainingPlan
    evaluation: EvaluationPlan
    notes: Sequence[str] = field(default_factory=tuple)


def plan_run(config: RunConfig, *, store: Sweepable, assumed: Assumed) -> Plan:
    """The plan of a run whose paths are resolved (`open_run`).

    The problems are those of the store's data artifact, or are read where the config says, which
    may download them.

    Raises:
        LoridError: the config or the data cannot be used.
    """
    made = find(store, kind="knowledge", name=config.name, inputs=knowledge_inputs(config))
    with tempfile.TemporaryDirectory(prefix="lorid-plan-") as temporary:
        folder = _data_folder(config, store, Path(temporary) / "data")
        problems = list(iter_split(folder, "train"))
        groups = read_groups(folder)
        num_questions = _num_questions(config, folder)
        known = dict[str, tuple[str, ...]]()
        if made is not None:
            rows = read_enriched(fetch(store, made, into=Path(temporary) / "knowledge"))
            known = {source_of(row.problem): row.knowledge for row in rows}
    return Plan(
        run=config.name,
        teacher=_teacher_plan(config, groups, store=store, made=made, assumed=assumed),
        training=_training_plan(config, problems, known=known, assumed=assumed),
        evaluation=evaluation_plan(config, num_questions=num_questions, assumed=assumed),
        notes=_notes(config, made=made, assumed=assumed),
    )


def _data_folder(config: RunConfig, store: Sweepable, folder: Path) -> Path:
    record = find(store, kind="data", name=config.name, inputs=data_inputs(config))
    if record is not None:
        return fetch(store, record, into=folder)
    folder.mkdir()
    write_splits(config, folder)
    return folder


# Teacher ------------------------------------------------------------------------------------------


def _teacher_plan(
    config: RunConfig,
    groups: SourceGroups,
    *,
    store: Sweepable,
    made: Record | None,
    assumed: Assumed,
) -> TeacherPlan:
    from lorid.distributed.knowledge import read_template
    from lorid.distributed.teaching import manner_of

    teacher = config.teacher
    manner = manner_of(config, template=read_template(config))
    # Nothing is asked when the artifact is there.
    asks = (
        [0] * len(groups)
        if made is not None
        else _asks_left(config, groups, store=store, manner=manner)
    )
    waiting = [group for group, left in zip(groups, asks, strict=True) if left]
    count, counted_by = token_counter(teacher.vllm_model if teacher.kind == "vllm" else None)
    prompts = [teacher_prompt(group.source, template=manner.template) for group in waiting]
    prompt_tokens = scaled_count(prompts, count=count)
    output_tokens = len(waiting) * min(assumed.output_tokens, teacher.sampling.max_new_tokens)
    each = prompt_tokens / max(1, len(waiting))
    most = Usage(
        input_tokens=round(each * sum(asks)),
        output_tokens=sum(asks) * teacher.sampling.max_new_tokens,
    )
    expected = Usage(input_tokens=prompt_tokens, output_tokens=output_tokens)
    return TeacherPlan(
        num_problems=groups.num_problems,
        num_sources=len(groups),
        num_answered=len(groups) - len(waiting),
        num_requests=len(waiting),
        num_requests_at_most=sum(asks),
        prompt_tokens=prompt_tokens,
        prompt_tokens_by=counted_by,
        output_tokens=output_tokens,
        output_tokens_by=f"{assumed.output_tokens} an answer, assumed",
        price=_price(teacher, expected),
        price_at_most=_price(teacher, most),
        currency=teacher.prices.currency if teacher.prices else None,
        max_cost=teacher.max_cost,
        seconds_at_least=_seconds_by_limits(teacher, len(waiting), expected),
    )


def _asks_left(
    config: RunConfig, groups: SourceGroups, *, store: Sweepable, manner: Manner
) -> list[int]:
    """How often each source may still be asked, after what the ledger answers; 0: not at all."""
    ledger, identity = Ledger.opened(store, name=config.name), teacher_inputs(config)
    return [_asks_of(group.source, ledger, identity=identity, manner=manner) for group in groups]


def _asks_of(
    source: Problem, ledger: Ledger, *, identity: Mapping[str, Any], manner: Manner
) -> int:
    reason: str | None = None
    for ask in range(1, manner.max_asks + 1):
        request = request_for(source, manner=manner, ask=ask, reason=reason)
        stored = ledger.find(request.key(identity))
        if stored is None:
            return manner.max_asks - ask + 1
        reason = judge(stored.reply, problem=source, gate=manner.gate).rejected_because
        if reason is None:
            return 0
    return 0


def _price(teacher: TeacherConfig, usage: Usage) -> float | None:
    if teacher.prices is None:
        return None
    return cost_of(usage, prices=teacher.prices, is_batch=teacher.kind == "batch")


def _seconds_by_limits(teacher: TeacherConfig, num_requests: int, usage: Usage) -> float | None:
    """What the rate limits alone take; None without limits, and for batches, which wait in line."""
    if teacher.kind != "api" or teacher.api is None:
        return None
    seconds = list(_limited(teacher.api, num_requests, usage))
    return max(seconds) if seconds else None


def _limited(api: ApiConfig, num_requests: int, usage: Usage) -> Iterable[float]:
    if api.requests_per_minute:
        yield 60 * num_requests / api.requests_per_minute
    if api.tokens_per_minute:
        yield 60 * usage.total / api.tokens_per_minute
    if api.requests_per_second:
        yield num_requests / api.requests_per_second


# Training and evaluation --------------------------------------------------------------------------


def _training_plan(
    config: RunConfig,
    problems: Sequence[Problem],
    *,
    known: Mapping[str, tuple[str, ...]],
    assumed: Assumed,
) -> TrainingPlan:
    count, counted_by = token_counter(config.student)
    shown = _sampled(problems)
    enriched = [
        EnrichedProblem(problem=one, knowledge=known.get(source_of(one), TYPICAL_RULES))
        for one in shown
    ]
    fraction = config.training.validation_fraction
    ids = [one.problem_id for one in problems]
    out = held_out(ids, fraction=fraction, seed=config.seed)
    num_sequences = sum(one not in out for one in ids)
    roles = [
        _role_plan(config, role, enriched, count=count, num_sequences=num_sequences)
        for role in Role
    ]
    tokens = sum(role.tokens for role in roles)
    rate = assumed.train_tokens_per_s
    return TrainingPlan(
        roles=roles,
        tokens=tokens,
        tokens_by=counted_by,
        tokens_per_s=rate,
        gpu_hours=tokens / rate / 3600 if rate else None,
    )


def _role_plan(
    config: RunConfig,
    role: Role,
    shown: Sequence[EnrichedProblem],
    *,
    count: Count,
    num_sequences: int,
) -> RolePlan:
    training = config.training
    epochs = training.epochs_of(role)
    lengths = [count([f"{_turn(role, one)}\n{role_target(role, one)}"]) for one in shown]
    # The texts that are counted stand for the others, in their order.
    steps = plan_steps(
        list(islice(cycle(lengths), num_sequences)),
        num_epochs=epochs,
        sequences_per_step=training.sequences_per_step,
        tokens_per_step=training.tokens_per_step,
        seed=config.seed,
    )
    per_sequence = sum(lengths) / max(1, len(lengths))
    return RolePlan(
        role=str(role),
        num_sequences=num_sequences,
        num_epochs=epochs,
        num_steps=len(steps),
        tokens=round(per_sequence * num_sequences * epochs),
    )


def _turn(role: Role, one: EnrichedProblem) -> str:
    knowledge = join_knowledge(one.knowledge) if role is Role.DEEP_REASONER else None
    return user_turn(role, question=one.problem.question, knowledge=knowledge)


def evaluation_plan(config: RunConfig, *, num_questions: int, assumed: Assumed) -> EvaluationPlan:
    """What the rule draws of every question, and the base's one text.

    One side alone draws one attempt (the deep one with its knowledge), `majority` every round. The
    others stop between the fewest rounds that can satisfy them and `max_rounds`: after those the
    assumed share of rounds ends a question.
    """
    settings = config.evaluation
    policy = config.feedback.policy(rule=settings.draw_by)
    a_round = policy.asks_intuitive + 2 * policy.asks_deep
    fewest = min(policy.most_rounds, fewest_rounds_to_come(policy, Tally()))
    left, rate = policy.most_rounds - fewest + 1, assumed.agreement_rate
    expected = fewest - 1 + ((1 - (1 - rate) ** left) / rate if rate > 0 else left)
    base = num_questions if settings.grade_base else 0
    return EvaluationPlan(
        rule=policy.rule,
        num_questions=num_questions,
        num_generations_at_least=a_round * fewest * num_questions + base,
        num_generations_at_most=a_round * policy.most_rounds * num_questions + base,
        num_generations=round(a_round * expected * num_questions) + base,
        agreement_rate=rate,
    )


def _num_questions(config: RunConfig, data: Path) -> int:
    """The questions of the evaluation: its own, or those of the test split."""
    settings = config.evaluation
    if settings.questions is not None:
        return len(load_questions(settings).problems)
    return sum(1 for _ in islice(iter_split(data, "test"), settings.num_questions))


# Tokens -------------------------------------------------------------------------------------------


def token_counter(model: ModelConfig | None) -> tuple[Count, str]:
    """Counts the tokens of texts, and says by what: the model's tokenizer when it is a folder."""
    file = Path(model.path) / "tokenizer.json" if model is not None else None
    if file is None or not file.is_file():
        return (lambda texts: sum(map(len, texts)) // CHARS_PER_TOKEN), BY_CHARACTERS
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    return (
        lambda texts: sum(len(one.ids) for one in tokenizer.encode_batch(list(texts))),
        "the model's tokenizer, without its chat template",
    )


def scaled_count(texts: Sequence[str], *, count: Count) -> int:
    """Tokens of all texts, from up to `SAMPLED_TEXTS` of them spread evenly."""
    shown = _sampled(texts)
    return round(count(shown) / max(1, len(shown)) * len(texts))


def _sampled(items: Sequence[T]) -> Sequence[T]:
    return items[:: max(1, -(-len(items) // SAMPLED_TEXTS))]


def _notes(config: RunConfig, *, made: Record | None, assumed: Assumed) -> tuple[str, ...]:
    notes: list[str] = []
    if made is not None:
        notes.append(f"the knowledge is there already: {made.address}")
    if config.teacher.prices is None and config.teacher.kind != "vllm":
        notes.append("no price: teacher.prices is not set")
    if config.teacher.kind == "vllm":
        notes.append("the teacher runs on the cluster: its GPU time is not estimated")
    if config.teacher.kind == "batch":
        notes.append(f"batches may take their window: {config.teacher.batch.completion_window}")
    if assumed.train_tokens_per_s is None:
        notes.append(
            "GPU-hours are not estimated: no rate was measured for your GPUs; give "
            "--train-tokens-per-s"
        )
    return tuple(notes)
