"""A driver of an evaluation, to be killed: it asks the endpoint of the test that started it.

python evaluation_driver.py '{"store": ..., "url": ..., "triple": ..., "num_problems": 40}'
"""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext

from lorid.artifacts.records import load_record
from lorid.artifacts.stages import run_stage
from lorid.artifacts.store import open_store
from lorid.config import EndpointConfig
from lorid.distributed.evaluation import Evaluated, evaluate
from lorid.distributed.online import OverHttp
from lorid.distributed.outcomes import Asker
from lorid.method.problems import Problem
from lorid.presets import demo
from lorid.serving import EvaluationConfig


def problems_of(number: int) -> list[Problem]:
    """Questions of which the scripted engine gets some right."""
    return [
        Problem(problem_id=f"p{n}", question=f"What is {n}?", rationale="", answer=str(n % 3))
        for n in range(number)
    ]


def config_of(store: str, *, rule: str = "paper", max_rounds: int = 4) -> EndpointConfig:
    """The demo's endpoint on that store."""
    config = demo().endpoint()
    changes = {"rule": rule, "max_rounds": max_rounds}
    feedback = config.feedback.model_copy(update=changes)
    return config.model_copy(update={"store": store, "feedback": feedback})


def by_http(config: EndpointConfig, settings: EvaluationConfig, url: str) -> Asker:
    """Asks the endpoint there."""
    return OverHttp(config, settings, url=url)


def run(
    *, store: str, url: str, triple: str, num_problems: int, rule: str = "paper",
    asker_of: Callable[..., Asker] = by_http, **settings,
):  # fmt: skip
    """One run of the stage; returns its record."""
    opened, config = open_store(store), config_of(store, rule=rule)
    used = EvaluationConfig(items_per_request=4, **settings)
    subject = Evaluated(
        config=config,
        settings=used,
        triple=load_record(opened, triple),
        problems=problems_of(num_problems),
    )

    def build(folder):
        return evaluate(
            subject, store=opened, folder=folder, announce=print,
            opened=lambda: nullcontext(asker_of(config, used, url)),
        )  # fmt: skip

    return run_stage(
        opened, kind="evaluation", name=config.name, 
        inputs={"n": num_problems, "rule": rule, "triple": triple},
        parents=(triple,), build=build, announce=print,
    )  # fmt: skip


if __name__ == "__main__":
    run(**json.loads(sys.argv[1]))
