"""Aliases: names such as `production` that point at a triple and can be moved and moved back.

    promote(store, "production", "triple/gsm8k/0123456789ab")
    current_entry(store, "production").target
    rollback(store, "production")

An alias is its history: numbered records `aliases/{alias}/{number:08d}.json`, each created only if
it is absent, the highest number being the current one. A change is a compare-and-swap: it claims
the number after the one that it has seen, and loses when somebody else has claimed it. Nothing is
ever overwritten.

A promotion that loses a race looks again and takes the next number, since its intent does not
depend on what was there; with `expect` it does, and is refused. A rollback that loses is refused:
two people who both undo the same bad triple must not go back two.
"""

import getpass
import platform
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from lorid.artifacts.store import ArtifactStore
from lorid.config import NAME_PATTERN, Section
from lorid.errors import ArtifactDrifted, ArtifactError, ArtifactIncomplete, DataError

MAX_TRIES = 100
NOTHING = "none"


class AliasEntry(Section):
    """One change of an alias: what it points at since then, and what it pointed at before."""

    alias: Annotated[str, Field(pattern=NAME_PATTERN)]
    number: Annotated[int, Field(ge=1, lt=10**8)]
    action: Literal["promote", "rollback"]
    target: Annotated[str, Field(pattern=r"^triple/[^/]+/[^/]+$")]
    previous: str | None
    at: str
    by: str

    def told(self) -> str:
        """`production is triple/x/1 (number 3, promote by ann at 2026-11-24T10:00:00+00:00)`."""
        return (
            f"{self.alias} is {self.target} "
            f"(number {self.number}, {self.action} by {self.by} at {self.at})"
        )


def current_entry(store: ArtifactStore, alias: str) -> AliasEntry | None:
    """The newest change of an alias; None when it was never set.

    Raises:
        DataError: the name is malformed.
        ArtifactDrifted: the entry is damaged.
    """
    numbers = _numbers(store, alias)
    return _read(store, alias, numbers[-1]) if numbers else None


def history(store: ArtifactStore, alias: str) -> list[AliasEntry]:
    """Every change of an alias, oldest first."""
    return [_read(store, alias, number) for number in _numbers(store, alias)]


def alias_names(store: ArtifactStore) -> list[str]:
    """All aliases of a store, sorted."""
    keys = [key.split("/") for key in store.list("aliases/")]
    return sorted({parts[1] for parts in keys if len(parts) == 3 and _number_of(parts[2])})


def promote(
    store: ArtifactStore,
    alias: str,
    target: str,
    *,
    expect: str | None = None,
    announce: Callable[[str], None] = lambda _: None,
) -> AliasEntry:
    """Point an alias at a triple; lost races are announced and tried again.

    Promoting what is there already makes an entry too: an endpoint that refused it tries it again.

    Args:
        expect: only if the alias points at this version or address ("none": at nothing) and
            nobody changes it meanwhile.

    Raises:
        ArtifactDrifted: it points elsewhere than expected; the message says at what, by whom.
    """
    for _ in range(MAX_TRIES):
        now = current_entry(store, alias)
        if expect is not None and not _is_expected(now, expect):
            raise ArtifactDrifted(_refused(alias, now, f"--expect {expect} does not hold"))
        entry = _claim(store, alias, now, action="promote", target=target)
        if entry is not None:
            return entry
        winner = current_entry(store, alias)
        if expect is not None:
            raise ArtifactDrifted(_refused(alias, winner, "somebody changed it meanwhile"))
        announce(_refused(alias, winner, "somebody changed it meanwhile") + "; trying again")
    raise ArtifactError(f"alias {alias!r}: lost {MAX_TRIES} races in a row; try again later")


def rollback(store: ArtifactStore, alias: str, *, expect: str | None = None) -> AliasEntry:
    """Point an alias at what it pointed at before the newest promotion that is not undone.

    Promotions are a stack: each rollback takes one off, whatever rollbacks came before, so
    repeating it walks back one triple at a time; a promotion after it starts from there.

    Raises:
        ArtifactIncomplete: there is nothing before.
        ArtifactDrifted: somebody changed the alias meanwhile, or `expect` does not hold.
    """
    entries = history(store, alias)
    now = entries[-1] if entries else None
    if expect is not None and not _is_expected(now, expect):
        raise ArtifactDrifted(_refused(alias, now, f"--expect {expect} does not hold"))
    standing = standing_targets(entries)
    if len(standing) < 2:
        told = entries[-1].told() if entries else f"{alias!r} was never set"
        raise ArtifactIncomplete(f"nothing to roll back to: {told}; nothing stands before it")
    entry = _claim(store, alias, now, action="rollback", target=standing[-2])
    if entry is None:
        winner = current_entry(store, alias)
        raise ArtifactDrifted(
            _refused(alias, winner, "somebody changed it meanwhile")
            + "; roll back again if that is still wanted"
        )
    return entry


def standing_targets(entries: Sequence[AliasEntry]) -> list[str]:
    """The promotions that no rollback has undone, the current target last."""
    stack: list[str] = []
    for entry in entries:
        if entry.action == "rollback" and entry.target in stack:
            while stack[-1] != entry.target:
                stack.pop()
        elif not stack or stack[-1] != entry.target:
            stack.append(entry.target)
    return stack


def _claim(
    store: ArtifactStore,
    alias: str,
    now: AliasEntry | None,
    *,
    action: Literal["promote", "rollback"],
    target: str,
) -> AliasEntry | None:
    """The entry with the number after `now`, or None when somebody else has that number."""
    entry = AliasEntry(
        alias=alias,
        number=now.number + 1 if now else 1,
        action=action,
        target=target,
        previous=now.target if now else None,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        by=_who(),
    )
    text = (entry.model_dump_json() + "\n").encode()
    won = store.write(_key(alias, entry.number), text, if_absent=True)
    return entry if won else None


def _numbers(store: ArtifactStore, alias: str) -> list[int]:
    if not re.fullmatch(NAME_PATTERN, alias):
        raise DataError(
            f"alias {alias!r}: expected lower case letters, digits, dot, dash or underscore"
        )
    keys = store.list(f"aliases/{alias}/")
    return sorted(filter(None, (_number_of(key.rpartition("/")[2]) for key in keys)))


def _number_of(file: str) -> int | None:
    return int(file[:8]) if re.fullmatch(r"[0-9]{8}\.json", file) else None


def _read(store: ArtifactStore, alias: str, number: int) -> AliasEntry:
    key = _key(alias, number)
    try:
        entry = AliasEntry.model_validate_json(store.read(key))
    except ValidationError as error:
        raise ArtifactDrifted(
            f"{key} in {store.uri} is damaged: {error.errors()[0]['msg']}; "
            "restore it, or delete it to fall back on the one before"
        ) from error
    if (entry.alias, entry.number) != (alias, number):
        raise ArtifactDrifted(f"{key} in {store.uri} is of {entry.alias} number {entry.number}")
    return entry


def _key(alias: str, number: int) -> str:
    return f"aliases/{alias}/{number:08d}.json"


def _is_expected(now: AliasEntry | None, expect: str) -> bool:
    if now is None:
        return expect == NOTHING
    return expect in (now.target, now.target.removeprefix("triple/"), now.target.split("/")[2])


def _refused(alias: str, now: AliasEntry | None, why: str) -> str:
    return f"{why}: {now.told() if now else f'{alias} points at nothing'}"


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{platform.node()}"
    except (KeyError, OSError):
        return f"unknown@{platform.node()}"
