"""Asking an endpoint by HTTP what an evaluation wants to know.

problems --> client threads --> HTTP --> Ingress --> MutualFeedback --> StudentEngine
                  |
                  `--> outcomes, one a problem, as they finish

for outcome in OverHttp(config, settings, url=url).attempts(problems): ...
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence

from lorid.artifacts.retries import backoff_s
from lorid.batches import MAX_TRIES, grade_all
from lorid.client import Client
from lorid.config import EndpointConfig
from lorid.distributed.outcomes import Outcome, from_threads
from lorid.errors import EndpointBusy, ServeError
from lorid.method.problems import Problem
from lorid.serving import EvaluationConfig

BASE_MODEL = "lorid:base"
BASE_QUESTIONS_IN_FLIGHT = 32
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 20.0


class OverHttp:
    """Asks an endpoint; see `lorid.distributed.outcomes.Asker`."""

    def __init__(self, config: EndpointConfig, settings: EvaluationConfig, *, url: str) -> None:
        self.config, self.settings, self.url = config, settings, url

    def attempts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """What each question got by mutual feedback, as it is there.

        Raises:
            ServeError: the endpoint is gone, and has not come back in time.
        """
        size = self.settings.items_per_request
        chunks = (problems[start : start + size] for start in range(0, len(problems), size))
        with client_of(self.config, self.url) as client:

            def graded(chunk: Sequence[Problem]) -> Iterator[Outcome]:
                return self._graded(client, chunk)

            yield from from_threads(graded, chunks, num_threads=self.settings.requests_in_flight)

    def base_texts(self, problems: Sequence[Problem]) -> Iterator[Outcome]:
        """The base model's own answer to each question, without an adapter."""
        with client_of(self.config, self.url) as client:

            def asked(problem: Problem) -> Iterator[Outcome]:
                yield self._asked(client, problem)

            yield from from_threads(asked, problems, num_threads=BASE_QUESTIONS_IN_FLIGHT)

    def _graded(self, client: Client, chunk: Iterable[Problem]) -> Iterator[Outcome]:
        feedback = self.config.feedback
        problem_of = {problem.problem_id: problem for problem in chunk}
        items = [
            {"id": problem.problem_id, "question": problem.question, "reference": problem.answer}
            for problem in problem_of.values()
        ]
        for result in grade_all(
            client,
            items,
            seed=self.config.seed,
            rule=self.settings.draw_by or feedback.rule,
            max_rounds=feedback.max_rounds,
            include_transcripts=True,
        ):
            problem = problem_of[result["id"]]
            if result.get("error"):
                yield Outcome.failed(problem, result["error"], kind=str(result.get("error_type")))
            else:
                yield Outcome(problem=problem, row=result["transcript"]["attempts"])

    def _asked(self, client: Client, problem: Problem) -> Outcome:
        for number in range(MAX_TRIES):
            try:
                text, finish_reason = client.complete(
                    problem.question, model=BASE_MODEL, seed=self.config.seed
                )
            except EndpointBusy as error:
                if number == MAX_TRIES - 1:
                    return Outcome.failed(problem, str(error), kind="unavailable")
                wait_s = backoff_s(number, first_s=FIRST_WAIT_S, longest_s=LONGEST_WAIT_S)
                time.sleep(max(wait_s, error.retry_after_s or 0.0))
            except ServeError as error:
                return Outcome.failed(problem, str(error), kind="internal_error")
            else:
                return Outcome(problem=problem, row={"text": text, "finish_reason": finish_reason})
        raise AssertionError("the last try returns")


def client_of(config: EndpointConfig, url: str) -> Client:
    """A client that waits as long as the endpoint may work on one request."""
    key = os.environ.get("LORID_API_KEY") if config.serving.tokens_file else None
    return Client(url, key, timeout_s=config.serving.batch_timeout_s)
