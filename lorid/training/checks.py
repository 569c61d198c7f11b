"""What no retry can mend in a training, found by the driver before anything starts.

    check_training(config)                                   # settings, base, tokenizer, adapters
    check_examples(config, read=lambda: read_enriched(folder), roles=list(Role))    # the data

No weights are read, and of the data only as much as shows that there is something to learn.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lorid.artifacts.adapters import CONFIG_FILE, check_adapter, read_adapter_config
from lorid.artifacts.training_record import check_trained_for
from lorid.artifacts.triples import HUB_ID, identify_base
from lorid.config import RunConfig
from lorid.errors import AdapterMismatch, ArtifactDrifted, ConfigError, NothingToLearn
from lorid.method.problems import EnrichedProblem
from lorid.method.roles import Role
from lorid.method.templates import PROBE_QUESTION, TokenizerLike, encode_prompt, encode_target
from lorid.training.adapters import cannot_load, check_start, check_targets, load_tokenizer
from lorid.training.attention import use_packed_attention
from lorid.training.batches import encode_examples, encode_problem, hold_out
from lorid.training.steps import is_held_out


def check_training(config: RunConfig) -> None:
    """Check settings, base, tokenizer and adapters to go on from; reads no weights of the base.

    Raises:
        AdapterMismatch: a target module is not in the model, the rank exceeds its width, or an
            adapter to go on from has other settings or was made for another base or family.
        ConfigError: the model or its tokenizer cannot be loaded, lacks a token, or has layers that
            are not attention.
    """
    student, training = config.student, config.training
    if training.use_dora:
        raise ConfigError(
            "training.use_dora: vLLM serves no DoRA adapters, so a run cannot use them; "
            "TrainingSession trains them"
        )
    for role in training.start_from:
        _check_start(config, role)
    tokenizer = cast("TokenizerLike", load_tokenizer(student))
    _check_tokens(tokenizer, family=student.family)
    try:
        settings = AutoConfig.from_pretrained(
            student.path, revision=student.revision, trust_remote_code=False
        )
        with torch.device("meta"):
            shape = AutoModelForCausalLM.from_config(settings)
    except Exception as error:  # damaged files raise whatever their parsers raise
        raise ConfigError(cannot_load("model", student, error)) from error
    use_packed_attention(shape)
    check_targets(shape, training)
    for role, folder in training.start_from.items():
        with _naming(role):
            check_adapter(Path(folder), base=settings.to_dict())


def _check_tokens(tokenizer: TokenizerLike, *, family: str) -> None:
    """Both sides of an example need tokens of their own."""
    encode_target(tokenizer, family=family, text="")
    encode_prompt(tokenizer, family=family, role=Role.INTUITIVE_REASONER, question=PROBE_QUESTION)


def _check_start(config: RunConfig, role: Role) -> None:
    """Compare what an adapter says of itself with the run; its shapes come later."""
    folder, student = Path(config.training.start_from[role]), config.student
    check_start(folder, config.training, role=role)
    named = read_adapter_config(folder).base_model_name_or_path or ""
    if _are_other_models(named, student.path):
        raise AdapterMismatch(
            f"training.start_from.{role}: the adapter in {folder} is of {named}, not of "
            f"{student.path}; set student.path={named}, or, if the two are one, correct "
            f"base_model_name_or_path in its {CONFIG_FILE}"
        )
    with _naming(role):
        check_trained_for(folder, base=identify_base(student))


@contextmanager
def _naming(role: Role) -> Iterator[None]:
    """Errors about an adapter's folder name the field that names it."""
    try:
        yield
    except (AdapterMismatch, ArtifactDrifted) as error:
        raise AdapterMismatch(f"training.start_from.{role}: {error}") from error


def check_examples(
    config: RunConfig, *, read: Callable[[], Iterable[EnrichedProblem]], roles: Sequence[Role]
) -> None:
    """Check that the problems leave something to learn, and to validate on; `read` reads them.

    Raises:
        NothingToLearn: all of them are too long, none has a target, or one side would be empty.
    """
    if next(iter(read()), None) is None:
        raise NothingToLearn(
            "the knowledge stage kept no problem to train on; its rejects.jsonl says why"
        )
    tokenizer = cast("TokenizerLike", load_tokenizer(config.student))
    for role in roles:
        if not _has_both_sides(config, read(), role=role, tokenizer=tokenizer):
            # The whole of it, which says what is wrong with what numbers.
            examples, _ = encode_examples(
                list(read()),
                tokenizer=tokenizer,
                family=config.student.family,
                role=role,
                max_tokens=config.training.max_sequence_tokens,
                too_long=config.training.too_long,
            )
            hold_out(examples, fraction=config.training.validation_fraction, seed=config.seed)


def _has_both_sides(
    config: RunConfig,
    problems: Iterable[EnrichedProblem],
    *,
    role: Role,
    tokenizer: TokenizerLike,
) -> bool:
    """Whether there is an example to train on, and where one is wanted another to validate on."""
    training = config.training
    wanted = {False, True} if training.validation_fraction else {False}
    for problem in problems:
        example, _ = encode_problem(
            problem,
            tokenizer=tokenizer,
            family=config.student.family,
            role=role,
            max_tokens=training.max_sequence_tokens,
            too_long=training.too_long,
        )
        if example is not None:
            found = is_held_out(
                example.problem_id, fraction=training.validation_fraction, seed=config.seed
            )
            wanted.discard(found)
        if not wanted:
            return True
    return False


def _are_other_models(one: str, other: str) -> bool:
    """Whether two ids of a hub name different models, and not one model of two owners."""
    if not all(HUB_ID.fullmatch(name) and "/" in name for name in (one, other)):
        return False
    return one.split("/")[-1].lower() != other.split("/")[-1].lower()
