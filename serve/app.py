"""The endpoint of a triple, for `serve run` and `serve deploy`.

  serve run serve.app:build run=lorid-demo/store#demo
  serve run serve.app:build run=s3://bucket/lorid@production
  serve deploy serve/config.yaml

`run` is STORE#NAME (the newest triple of that run, as of now), STORE#NAME/VERSION (that one), or
STORE@ALIAS: what the alias points at, followed when `lorid triple promote` moves it.
"""

from ray.serve import Application

from lorid.distributed import haproxy
from lorid.distributed.deployments import app_of_run
from lorid.errors import ConfigError


def build(args: dict[str, str]) -> Application:
    """The deployment graph; other arguments change the run's config: serving.num_replicas=2."""
    # `serve run` comes here before it starts a Ray of its own.
    haproxy.prepare()
    changes = dict(args)
    run = changes.pop("run", None)
    if run is None:
        raise ConfigError("run is missing: serve run serve.app:build run=STORE#NAME or STORE@ALIAS")
    return app_of_run(run, overrides=changes)
