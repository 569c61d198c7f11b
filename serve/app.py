"""The endpoint of a trained run, for `serve run` and `serve deploy`.

  serve run serve.app:build run=lorid-demo/store#demo
  serve deploy serve/config.yaml

`run` is STORE#NAME: the newest triple of that run in a folder or in s3://bucket/prefix.
"""

from ray.serve import Application

from lorid.distributed.deployments import app_of_run
from lorid.errors import ConfigError


def build(args: dict[str, str]) -> Application:
    """The deployment graph; other arguments change the run's config: serving.num_replicas=2."""
    changes = dict(args)
    run = changes.pop("run", None)
    if run is None:
        raise ConfigError("run is missing: serve run serve.app:build run=STORE#NAME")
    return app_of_run(run, overrides=changes)
