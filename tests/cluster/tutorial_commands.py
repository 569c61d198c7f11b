"""The tutorial as its tests read it: its commands, its config, and a miniature of both.

    for command in commands(): ...          # in order, without their line breaks
    (folder / "run.yaml").write_text(miniature(teacher_url=server.url, port=8000))

The miniature keeps names, stages and every command; models and problems become the demo's, the
provider a local server, GPUs none.
"""

import re
import shlex
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "tutorial.md"
# What makes a machine ready; the tests' machine is.
OF_THE_MACHINE = ("python3.11 -m venv", "pip install", "lorid --install-completion", "export ")


def blocks(language):
    """The fenced blocks of a language, in order."""
    found = re.findall(
        rf"^```{language}\n(.*?)^```$", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL
    )
    return list(found)


def commands():
    """Every command that is about lorid, as a list of words."""
    text = "".join(blocks("bash")).replace("\\\n", " ")
    # As in bash, a comment stands behind a space: run=STORE#NAME is one word.
    lines = (re.sub(r"(^| )#.*", "", line).strip() for line in text.splitlines())
    return [shlex.split(line) for line in lines if line and not line.startswith(OF_THE_MACHINE)]


def config_text():
    """The config that the reader writes."""
    (only,) = blocks("yaml")
    return only


def items_text():
    """The items that the reader grades."""
    (only,) = blocks("json")
    return only


def miniature(*, teacher_url, port):
    """The tutorial's config for two cores and some minutes."""
    told = yaml.safe_load(config_text())
    teacher = told["teacher"]
    teacher["api"] |= {"base_url": teacher_url, "requests_per_minute": 60_000}
    teacher["api"] |= {"tokens_per_minute": 10_000_000}
    # The local server's rules are sentences about nothing; they pass the gate.
    small = {
        "preset": "demo",
        "name": told["name"],
        "store": told["store"],
        "teacher": teacher,
        "data": {"num_train": 48, "num_test": 8},
        "training": {
            "mode": told["training"]["mode"],
            "num_epochs_by_role": {"knowledge_generator": 2, "deep_reasoner": 2},
        },
        "feedback": {"max_rounds": 3},
        "serving": {"port": port},
    }
    return yaml.safe_dump(small)
