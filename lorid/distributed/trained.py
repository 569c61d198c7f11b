"""Which adapters of a run are trained already, and whether the others can be.

check_before_training(run, stages=("train",))    # before Ray starts
missing_roles(run)                               # what the train stage has to do
"""

from collections.abc import Sequence

from lorid.artifacts.records import Record, find
from lorid.config import RunConfig
from lorid.distributed.inputs import adapter_inputs, knowledge_inputs
from lorid.distributed.opening import Run, fetched
from lorid.method.roles import Role


def adapter_name(config: RunConfig, role: Role) -> str:
    """Name of a role's adapter in the store."""
    return f"{config.name}-{role}"


def find_adapter(run: Run, role: Role) -> Record | None:
    """The role's adapter of this config, if it is trained."""
    return find(
        run.store,
        kind="adapter",
        name=adapter_name(run.config, role),
        inputs=adapter_inputs(run.config, role),
    )


def missing_roles(run: Run) -> list[Role]:
    """The roles that are not trained with this config."""
    return [role for role in Role if find_adapter(run, role) is None]


def check_before_training(run: Run, *, stages: Sequence[str]) -> None:
    """Find what training could not mend, before Ray starts and a teacher is paid for nothing.

    The problems are looked at as soon as they are there. Nothing is done without the train stage,
    or when all is trained.

    Raises:
        AdapterMismatch, ConfigError, NothingToLearn: see `lorid.training.checks`.
    """
    missing = missing_roles(run) if "train" in stages else []
    if not missing:
        return
    from lorid.distributed.cluster import prepare_environment

    prepare_environment()
    from lorid.artifacts.enriched import read_enriched
    from lorid.training.checks import check_examples, check_training

    check_training(run.config)
    inputs = knowledge_inputs(run.config)
    source = find(run.store, kind="knowledge", name=run.config.name, inputs=inputs)
    if source is not None:
        with fetched(run.store, source) as folder:
            check_examples(run.config, read=lambda: read_enriched(folder), roles=missing)
