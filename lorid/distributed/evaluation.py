"""The evaluate stage: serve the triple, grade the test split through HTTP, log every attempt.

    problems --> client threads --> HTTP --> Ingress --> MutualFeedback --> StudentEngine
                      |
                      `--> attempts.jsonl (one line a problem, as its batch comes back)

The log is the result: every figure in the report is a replay of it, without a model.
"""

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions

from lorid.artifacts.records import Record
from lorid.batches import grade_all
from lorid.client import Client
from lorid.config import RunConfig
from lorid.distributed.cluster import only_errors
from lorid.distributed.deployments import APP_NAME, app_of_triple
from lorid.distributed.progress import Progress
from lorid.distributed.room import waits_said
from lorid.errors import ServeError
from lorid.jsonl import write_jsonl
from lorid.method.grader import GRADER_VERSION
from lorid.method.problems import Problem

BASE_MODEL = "lorid:base"
READY_TIMEOUT_S = 600.0
BASE_QUESTIONS_IN_FLIGHT = 32
NO_ATTEMPTS: Mapping[str, Any] = {"intuitive": [], "knowledge": [], "deep": []}


@contextmanager
def served(config: RunConfig, *, triple: Record) -> Iterator[str]:
    """The triple's endpoint for the duration of the block; gives its URL.

    Raises:
        ServeError: the port is in use, or the graph does not become ready.
    """
    only_errors("ray.serve")
    serving = config.serving
    require_free_port(serving.host, serving.port)
    serve.start(http_options=HTTPOptions(host=serving.host, port=serving.port))
    try:
        with waits_said(Progress("evaluate").say):
            _deploy(app_of_triple(config, triple))
            url = f"http://{serving.host}:{serving.port}"
            with client_of(config, url) as client:
                client.wait_until_ready(timeout_s=READY_TIMEOUT_S)
            yield url
    finally:
        # Ray prints the end of Serve's controller, which we asked for, as the failure of a task.
        with redirect_stdout(StringIO()):
            serve.shutdown()


def _deploy(app: Application) -> None:
    try:
        serve.run(app, name=APP_NAME, route_prefix="/", blocking=False)
    except RuntimeError as error:
        raise ServeError(f"the endpoint cannot start: {_reason_noted()}") from error


def _reason_noted() -> str:
    """Why a replica did not start: lorid's own error in what Serve notes, or else its last line.

    Serve keeps a replica's error as the text of a traceback only.
    """
    app = serve.status().applications.get(APP_NAME)
    noted = [deployment.message for deployment in app.deployments.values()] if app else []
    lines = [line.strip() for text in noted for line in text.splitlines() if line.strip()]
    own = [line.partition(": ")[2] for line in lines if line.startswith("lorid.errors.")]
    return next(iter(own or reversed(lines)), "see Serve's log")[:500]


def client_of(config: RunConfig, url: str) -> Client:
    """A client that waits as long as the endpoint may work on one request."""
    key = os.environ.get("LORID_API_KEY") if config.serving.tokens_file else None
    return Client(url, key, timeout_s=config.serving.batch_timeout_s)


@contextmanager
def client_threads(number: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for requests; when the block is left early, what waits in the queue is dropped."""
    pool = ThreadPoolExecutor(number)
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def require_free_port(host: str, port: int) -> None:
    """Raise ServeError when somebody listens there already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServeError(
                f"cannot listen on {host}:{port}: {error.strerror}; "
                "stop what uses it, or set serving.port (or serving.host)"
            ) from error


def grade_split(
    config: RunConfig, problems: Sequence[Problem], *, url: str, folder: Path
) -> Mapping[str, Any]:
    """Grade every problem by HTTP; writes `attempts.jsonl` and `base.jsonl`; returns the counts."""
    attempts, counts = _grade(config, problems, url=url)
    write_jsonl(folder / "attempts.jsonl", attempts)
    base = _ask_base(config, problems, url=url) if config.evaluation.grade_base else []
    write_jsonl(folder / "base.jsonl", base)
    return {**counts, "num_base": len(base), "grader_version": GRADER_VERSION}


def _grade(
    config: RunConfig, problems: Sequence[Problem], *, url: str
) -> tuple[list[dict[str, Any]], Mapping[str, int | float]]:
    size = config.evaluation.items_per_request
    chunks = [problems[start : start + size] for start in range(0, len(problems), size)]
    rows: dict[str, dict[str, Any]] = {}
    reasons: list[str] = []
    num_correct = num_rounds = 0
    with (
        Progress("evaluate") as progress,
        client_of(config, url) as client,
        client_threads(config.evaluation.requests_in_flight) as pool,
    ):
        progress.update("mutual feedback", done=0, total=len(problems))
        futures = [pool.submit(_grade_chunk, client, chunk, seed=config.seed) for chunk in chunks]
        for future in as_completed(futures):
            for result in future.result():
                if result.get("error"):
                    reasons.append(result["error"])
                else:
                    num_correct += result["verdict"] == "correct"
                    num_rounds += result["num_rounds"]
                    rows[result["id"]] = result["transcript"]["attempts"]
            done = len(rows) + len(reasons)
            note = f"accuracy so far {num_correct / max(1, len(rows)):.1%}"
            progress.update("mutual feedback", done=done, total=len(problems), note=note)
    if not rows:
        raise ServeError(f"none of {len(problems)} problems was graded; the first: {reasons[0]}")
    # A problem that failed has no attempts: it counts as not answered, and is never left out.
    ordered = [
        {
            "question": problem.question,
            **NO_ATTEMPTS,
            **rows.get(problem.problem_id, {}),
            "problem_id": problem.problem_id,
            "gold": problem.answer,
            "family": problem.family,
        }
        for problem in problems
    ]
    counts = {
        "num_problems": len(ordered),
        "num_correct": num_correct,
        "num_errors": len(reasons),
        "accuracy": num_correct / len(ordered),
        "mean_rounds": num_rounds / len(rows),
    }
    return ordered, counts


def _grade_chunk(client: Client, chunk: Sequence[Problem], *, seed: int) -> list[dict[str, Any]]:
    items = [
        {"id": problem.problem_id, "question": problem.question, "reference": problem.answer}
        for problem in chunk
    ]
    return list(grade_all(client, items, seed=seed, include_transcripts=True))


def _ask_base(config: RunConfig, problems: Sequence[Problem], *, url: str) -> list[dict[str, Any]]:
    """The base model's own answer to each question, without an adapter."""
    with (
        Progress("evaluate") as progress,
        client_of(config, url) as client,
        client_threads(BASE_QUESTIONS_IN_FLIGHT) as pool,
    ):

        def ask(problem: Problem) -> dict[str, Any]:
            text, finish_reason = client.complete(
                problem.question, model=BASE_MODEL, seed=config.seed
            )
            return {
                "problem_id": problem.problem_id,
                "gold": problem.answer,
                "text": text,
                "finish_reason": finish_reason,
            }

        rows = []
        for done, row in enumerate(pool.map(ask, problems), start=1):
            rows.append(row)
            progress.update("base model alone", done=done, total=len(problems))
        return rows
