"""deploy/docker: the image is made of files that are there and of the lock, and is no root."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "docker" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n\s*", " ", FILE.read_text())
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.strip().partition(" ") for line in lines)]


def copied(lock: str) -> list[str]:
    """What is copied from the project's folder, with the lock that was asked for."""
    sources = []
    for word, rest in instructions():
        if word == "COPY" and "--from=" not in rest:
            sources += rest.replace("${LOCK}", lock).split()[:-1]
    return sources


def test_what_is_copied_is_there_and_reaches_the_builder():
    ignore = FILE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    sent = {line.removeprefix("!") for line in ignore if line.startswith("!")}
    assert "*" in ignore
    for source in [*copied("gpu"), *copied("cpu")]:
        assert (ROOT / source).exists()
        assert Path(source).parts[0] in sent


def test_every_package_comes_from_the_lock():
    runs = [rest for word, rest in instructions() if word == "RUN"]
    installs = re.findall(r"pip install [^&]*", " && ".join(runs))
    assert len(installs) == 3
    assert all("--no-deps" in install for install in installs)
    assert "/tmp/lock.txt" in installs[1]


def test_the_image_runs_as_a_user_and_says_how_it_is():
    words = dict(instructions())
    assert words["USER"].split(":")[0] not in ("0", "root")
    assert words["HEALTHCHECK"]
    assert "0.0.0.0" not in FILE.read_text()
