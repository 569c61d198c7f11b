"""The knowledge stage: Ray Data runs the teacher over the training problems.

    problems --> [ Ray Data: TeacherEngine actors, one vLLM engine each ] --> kept | set aside

Each block is one batch of requests that the engine interleaves as it likes. Text that cannot be
used is asked for once more with another seed, then set aside with its reason; it never fails the
stage.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from lorid.config import RunConfig
from lorid.distributed.cluster import only_errors
from lorid.distributed.progress import Progress
from lorid.errors import ConfigError, EngineError, LoridError, TeacherError
from lorid.method.knowledge import (
    TEACHER_TEMPLATE,
    ParsedKnowledge,
    parse_knowledge,
    teacher_prompt,
)
from lorid.method.problems import EnrichedProblem, Problem

NUM_TRIES = 2


@dataclass(frozen=True, kw_only=True)
class KnowledgeResult:
    """What the teacher gave: problems with knowledge, and rows that were set aside."""

    kept: list[EnrichedProblem]
    rejects: list[dict[str, str]]
    num_generated_tokens: int
    num_retried: int

    def details(self) -> dict[str, Any]:
        """Counts for the record."""
        reasons = Counter(reject["reason"].split(":")[0] for reject in self.rejects)
        return {
            "num_problems": len(self.kept) + len(self.rejects),
            "num_kept": len(self.kept),
            "num_rejected": len(self.rejects),
            "num_retried": self.num_retried,
            "num_generated_tokens": self.num_generated_tokens,
            "rejected_because": dict(reasons),
        }


def read_template(config: RunConfig) -> str:
    """The teacher's prompt: lorid's own, or the file that the config names, checked once."""
    if config.teacher.template is None:
        return TEACHER_TEMPLATE
    try:
        template = Path(config.teacher.template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"teacher.template: cannot read the file: {error}") from error
    for name in ("{question}", "{rationale}"):
        if name not in template:
            raise ConfigError(f"teacher.template: {name} does not occur in it")
    return template


class TeacherEngine:
    """One vLLM engine in a Ray Data actor; a batch of rows in, the same rows with texts out."""

    def __init__(self, config_json: str, template: str) -> None:
        from lorid.engines.vllm import VllmEngine

        self.config = RunConfig.model_validate_json(config_json)
        self.template = template
        self.loop = asyncio.new_event_loop()
        teacher = self.config.teacher
        self.engine = VllmEngine(
            student=teacher.vllm_model,
            sampling=teacher.sampling,
            engine=teacher.engine,
            seed=self.config.seed,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            answers = self.loop.run_until_complete(self._ask_all(list(batch["problem"])))
        except LoridError as error:
            # Ray Data loses the class of what is raised here: the driver raises it instead.
            failure = {"failed": type(error).__name__, "message": str(error)}
            answers = [failure] * len(batch["problem"])
        return {"problem": batch["problem"], "answer": [json.dumps(answer) for answer in answers]}

    async def _ask_all(self, rows: Sequence[str]) -> list[dict[str, Any]]:
        return await asyncio.gather(*(self._ask(json.loads(row)) for row in rows))

    async def _ask(self, row: dict[str, str]) -> dict[str, Any]:
        problem = Problem.from_row(row)
        turn = teacher_prompt(problem, template=self.template)
        parsed, num_tokens, tries = ParsedKnowledge.refused("not-asked", ""), 0, 0
        for tries in range(1, NUM_TRIES + 1):
            try:
                completion = await self.engine.complete(turn, seed=self.config.seed + tries - 1)
            except EngineError as error:
                # A dead engine fails the stage; a row that a live one refuses is set aside.
                await self.engine.check()
                parsed = ParsedKnowledge.refused("refused-by-engine", str(error))
                break
            num_tokens += completion.num_tokens
            if completion.finish_reason == "length":
                parsed = ParsedKnowledge.refused("cut-off", "at the token limit")
            else:
                parsed = parse_knowledge(
                    completion.text, problem=problem, limits=self.config.teacher.gate.limits()
                )
            if parsed.rejected_because is None:
                break
        return {
            "rules": list(parsed.rules),
            "reason": parsed.rejected_because,
            "num_tokens": num_tokens,
            "num_tries": tries,
        }


def generate_knowledge(config: RunConfig, problems: Sequence[Problem]) -> KnowledgeResult:
    """Knowledge for every problem, by the configured teacher on the cluster.

    Raises:
        ConfigError: the teacher cannot be loaded.
        TeacherError: the engine died, or not one problem got usable knowledge.
    """
    template = read_template(config)
    teacher = config.teacher
    only_errors("ray.data")
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    num_blocks = max(1, -(-len(problems) // teacher.batch_rows))
    rows = [{"problem": json.dumps(problem.to_row())} for problem in problems]
    answered = ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
        TeacherEngine,
        fn_constructor_args=(config.model_dump_json(), template),
        batch_size=teacher.batch_rows,
        compute=ray.data.ActorPoolStrategy(size=teacher.num_engines),
        num_cpus=teacher.engine.num_cpus,
        num_gpus=teacher.engine.num_gpus * teacher.engine.tensor_parallel_size,
    )
    try:
        result = _collect(answered.iter_rows(), num_problems=len(problems))
    except RayError as error:
        cause = " ".join(str(error).split())[-300:]
        raise TeacherError(f"the teacher's workers failed: {cause}; run again to resume") from error
    if not result.kept:
        reasons = ", ".join(result.details()["rejected_because"])
        raise TeacherError(
            f"the teacher gave no usable knowledge for {len(problems)} problems ({reasons}); "
            "check teacher.model, its family and max_new_tokens"
        )
    return result


def _collect(rows: Any, *, num_problems: int) -> KnowledgeResult:
    kept: list[EnrichedProblem] = []
    rejects: list[dict[str, str]] = []
    num_tokens = num_retried = 0
    with Progress("knowledge") as progress:
        progress.update("teacher", done=0, total=num_problems)
        for row in rows:
            problem = Problem.from_row(json.loads(row["problem"]))
            answer: Mapping[str, Any] = json.loads(row["answer"])
            if "failed" in answer:
                is_config = answer["failed"] == ConfigError.__name__
                raise (ConfigError if is_config else TeacherError)(answer["message"])
            num_tokens += answer["num_tokens"]
            num_retried += answer["num_tries"] > 1
            if answer["reason"] is None:
                kept.append(EnrichedProblem(problem=problem, knowledge=tuple(answer["rules"])))
            else:
                rejects.append({**problem.to_row(), "reason": answer["reason"]})
            progress.update(
                "teacher",
                done=len(kept) + len(rejects),
                total=num_problems,
                note=f"{len(rejects)} set aside",
            )
    # Ray Data hands blocks back as they finish; the artifact must not depend on that order.
    kept.sort(key=lambda enriched: enriched.problem.problem_id)
    rejects.sort(key=lambda reject: reject["problem_id"])
    return KnowledgeResult(
        kept=kept, rejects=rejects, num_generated_tokens=num_tokens, num_retried=num_retried
    )
