"""The demo's run, smaller: what the cluster tests share."""

import socket
from pathlib import Path

SMALL = {
    "data": {"num_train": 48, "num_test": 6},
    "training": {"num_epochs": 2, "num_epochs_by_role": {}, "checkpoint_every_steps": 3},
    "teacher": {"batch_rows": 24},
    "feedback": {"max_rounds": 3},
    "evaluation": {"items_per_request": 3},
}


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def small_config_text(*, store: str | Path, name: str = "small") -> str:
    """A config file's text: the demo preset at a size for tests."""
    import yaml

    sections = {
        **SMALL,
        "preset": "demo",
        "name": name,
        "store": str(store),
        "serving": {"port": free_port()},
    }
    return yaml.safe_dump(sections)
