"""`--retry-rejects`: what the teacher's last try set aside is asked for again.

    config = next_retry(config, announce=print)     # teacher.retry_rejects is one higher

Every retry is a version of the knowledge of its own, with `teacher.retry_rejects` among its inputs:
problems that had knowledge keep it (the ledger answers for them), those that were set aside get
`teacher.max_asks` more asks. Later stages use it when their config says the same number.
"""

from collections.abc import Callable

from lorid.artifacts.records import Record, find
from lorid.config import RunConfig
from lorid.distributed.inputs import knowledge_inputs
from lorid.distributed.opening import open_run
from lorid.errors import ArtifactIncomplete


def next_retry(config: RunConfig, *, announce: Callable[[str], None]) -> RunConfig:
    """The config with the next retry that was not done yet, or as it is when nothing is left.

    Raises:
        ArtifactIncomplete: there is no knowledge yet whose rejects could be retried.
    """
    run = open_run(config)
    number, last = config.teacher.retry_rejects, None
    while True:
        candidate = _with_retries(run.config, number)
        record = find(
            run.store, kind="knowledge", name=config.name, inputs=knowledge_inputs(candidate)
        )
        if record is None:
            break
        number, last = number + 1, record
    if last is None:
        raise ArtifactIncomplete(
            f"no knowledge of run {config.name!r} with this config in {run.store.uri}, so nothing "
            "was set aside yet; run jobs/generate_knowledge.py without --retry-rejects first"
        )
    if _num_rejected(last) == 0:
        announce(f"  {last.address}: nothing is set aside")
        return _with_retries(config, number - 1)
    announce(
        f"  asking again for {_num_rejected(last)} problems that {last.address} set aside; later "
        f"stages take the result with --set teacher.retry_rejects={number}"
    )
    return _with_retries(config, number)


def _with_retries(config: RunConfig, number: int) -> RunConfig:
    teacher = config.teacher.model_copy(update={"retry_rejects": number})
    return config.model_copy(update={"teacher": teacher})


def _num_rejected(record: Record) -> int:
    count = record.details.get("num_rejected", 0)
    return count if isinstance(count, int) else 0
