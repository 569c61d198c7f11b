"""The locks hold what pyproject.toml asks for, and the same versions as each other."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# What PyTorch's and vLLM's builds for CUDA pin to something else than their builds for the CPU.
DIFFERENT = {"triton", "apache-tvm-ffi"}


def lock(name: str) -> dict[str, str]:
    pins = re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "locks" / name).read_text(), re.MULTILINE)
    return {canonicalize_name(package): version for package, version in pins}


def required(extra: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("name", ["cpu.txt", "gpu.txt"])
def test_every_line_of_a_lock_is_one_exact_version(name):
    lines = (ROOT / "locks" / name).read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert len(packages) == len(lock(name))


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_a_lock_has_every_dependency_at_a_version_that_is_allowed(name):
    pins = lock(f"{name}.txt")
    for requirement in required(name):
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: locked at {version}"


def test_both_locks_agree_on_what_they_share():
    cpu, gpu = lock("cpu.txt"), lock("gpu.txt")
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == DIFFERENT
