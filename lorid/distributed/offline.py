"""Asking by Ray Data: questions go to engines in actors, without an endpoint and without HTTP.

    questions --> [ Ray Data: StudentWorker actors ] --> outcomes, a batch at a time
                        |
                        `--> shards in the store, each row as it is finished

A worker holds what a replica of the endpoint holds (`StudentEngine`) and asks it the same way, so
the same seed gives the same texts. It logs rows itself: what a killed driver or worker had finished
is kept.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from lorid import errors
from lorid.api import SolveRequest
from lorid.artifacts.attempts_log import AttemptsLog
from lorid.artifacts.store import open_store
from lorid.config import EndpointConfig
from lorid.distributed.bodies import failure_of
from lorid.distributed.cluster import only_errors
from lorid.distributed.demands import engine_gpus
from lorid.distributed.deployments import VllmFactory
from lorid.distributed.outcomes import BASE, MUTUAL, Outcome
from lorid.distributed.sources import TripleSource
from lorid.distributed.student import EngineFactory, StudentEngine
from lorid.errors import EngineDied, EngineError, LoridError, one_line
from lorid.method.problems import Problem
from lorid.serving import EvaluationConfig

BATCH_ROWS = 8


class ByRayData:
    """Asks engines in actors; see `lorid.distributed.outcomes.Asker`."""

    def __init__(
        self,
        config: EndpointConfig,
        settings: EvaluationConfig,
        *,
        source: TripleSource,
        folder: str,
        factory: EngineFactory | None = None,
    ) -> None:
        self.config, self.settings, self.folder = config, settings, folder
        self.source, self.factory = source, factory or VllmFactory(num_triples=1)

    def attempts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """What each question got by mutual feedback, a batch at a time.

        Raises:
            LoridError: an engine cannot start, or has died; what was finished is logged.
        """
        return self._answered(problems, folder=MUTUAL)

    def base_texts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """The base's own answers; the engines start again, with the same triple."""
        return self._answered(problems, folder=BASE)

    def _answered(self, problems: Sequence[Problem], *, folder: str) -> Iterator[Outcome]:
        if not problems:
            return
        only_errors("ray.data")
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        by_number = dict(enumerate(problems))
        try:
            for row in self._rows(problems, folder=folder).iter_rows():
                answer: Mapping[str, Any] = json.loads(row["answer"])
                if "failed" in answer:
                    raise getattr(errors, answer["failed"], EngineError)(answer["message"])
                # The worker knows the question; which problem it is, the driver.
                outcome = Outcome(problem=by_number[row["number"]], **answer)
                yield replace(outcome, is_logged=outcome.row is not None)
        except RayError as error:
            cause = one_line(error, max_chars=300)
            raise EngineError(f"the engines failed: {cause}; run again to resume") from error

    def _rows(self, problems: Sequence[Problem], *, folder: str) -> Any:
        rows = [
            {"number": number, "problem": json.dumps(problem.to_row())}
            for number, problem in enumerate(problems)
        ]
        num_blocks = -(-len(rows) // BATCH_ROWS)
        engine, num_engines = self.config.engine, min(self.settings.num_engines, num_blocks)
        # Ends of batches leave slots free: some more are there to fill them.
        at_once = -(-self.config.serving.max_concurrent_questions // BATCH_ROWS) + 1
        at_once = min(at_once, -(-num_blocks // num_engines))
        return ray.data.from_items(rows, override_num_blocks=num_blocks).map_batches(
            StudentWorker,
            fn_constructor_args=(
                self.config.endpoint().model_dump_json(),
                self.settings.model_dump_json(),
                self.factory,
                self.source,
                f"{self.folder}{folder}",
            ),
            batch_size=BATCH_ROWS,
            compute=ray.data.ActorPoolStrategy(
                size=num_engines,
                max_tasks_in_flight_per_actor=2 * at_once,
                max_concurrent_calls_per_actor=at_once,
            ),
            num_cpus=engine.num_cpus,
            num_gpus=engine_gpus(engine),
        )


class StudentWorker:
    """One engine; asks for batches of questions, several at once, and logs each answer."""

    def __init__(
        self,
        config_json: str,
        settings_json: str,
        factory: EngineFactory,
        source: TripleSource,
        folder: str,
    ) -> None:
        self.config = EndpointConfig.model_validate_json(config_json)
        self.settings = EvaluationConfig.model_validate_json(settings_json)
        self.make = lambda: StudentEngine(config_json, factory, source, follows=False)
        self.is_base = folder.endswith(BASE)
        # Nothing is read: the driver has asked what is there, and rows of others are not needed.
        self.log = AttemptsLog.for_writing(open_store(self.config.store), folder)
        self.lock = asyncio.Lock()
        self.starting: asyncio.Task[StudentEngine] | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        answers = await asyncio.gather(
            *(self._answer(Problem.from_row(json.loads(row))) for row in batch["problem"])
        )
        try:
            async with self.lock:
                await asyncio.to_thread(self.log.flush)
        except LoridError as error:
            answers = [_failed(error)] * len(answers)
        return {"number": batch["number"], "answer": [json.dumps(answer) for answer in answers]}

    async def _answer(self, problem: Problem) -> dict[str, Any]:
        try:
            if self.starting is None:
                self.starting = asyncio.ensure_future(self._start())
            student = await self.starting
        except LoridError as error:
            return _failed(error)
        try:
            ask = self._base_row if self.is_base else self._attempts_row
            row = await ask(student, problem)
        except EngineDied as error:
            return _failed(error)
        except Exception as error:
            failure = failure_of(error)
            return {"row": None, "error": failure.message, "kind": failure.kind}
        try:
            async with self.lock:
                await asyncio.to_thread(self.log.add, {"question": problem.question, **row})
        except LoridError as error:
            return _failed(error)
        return {"row": row}

    async def _start(self) -> StudentEngine:
        # Ray Data loses the class of what is raised in a worker: batches tell it to the driver.
        student = self.make()
        await student.ready()
        return student

    async def _attempts_row(self, student: StudentEngine, problem: Problem) -> Mapping[str, Any]:
        feedback = self.config.feedback
        request = SolveRequest(
            question=problem.question,
            max_rounds=feedback.max_rounds,
            rule=self.settings.draw_by or feedback.rule,
            seed=self.config.seed,
        )
        answered = await student.solve(request, is_item=True)
        return answered.answer.attempts_row(problem_id=problem.problem_id, gold=problem.answer)

    async def _base_row(self, student: StudentEngine, problem: Problem) -> Mapping[str, Any]:
        answered = await student.answer_alone(problem.question, None, self.config.seed)
        finish_reason = "length" if answered.answer.truncated else "stop"
        return {"text": answered.answer.text, "finish_reason": finish_reason}


def _failed(error: LoridError) -> dict[str, Any]:
    return {"failed": type(error).__name__, "message": str(error)}
