"""Finding and removing what interrupted writers left in a store, never what a record names.

    leftovers = find_leftovers(store, grace_s=24 * 3600)
    remove_leftovers(store, leftovers, grace_s=24 * 3600)

Left over are contents under `blobs/` that no record names, temporary files of a local store, and
unfinished multipart uploads; nothing else is looked at. Safe beside a publisher:

- only what is older than the grace period counts, by the store's own clock, and a publisher's
  contents are new: storing content that is there already renews its time, and one that takes long
  renews all of them before it writes its record (`lorid.artifacts.records.FRESH_S`);
- contents are listed first and records read after, so a record written in between is seen;
- right before a content is removed its age is looked up again.

The grace period must be longer than `FRESH_S` (an hour), and longer than an interrupted upload may
wait for its next try. A record that cannot be read stops everything: what it names is not known.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from lorid.artifacts.records import load_records
from lorid.artifacts.store import Entry, Sweepable


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """Something that may go; `what` says why it lies there."""

    what: Literal["unreferenced content", "unfinished write"]
    entry: Entry


def find_leftovers(store: Sweepable, *, grace_s: float) -> list[Leftover]:
    """What is left over and older than the grace period, by key.

    Raises:
        ArtifactError: the store or one of its records cannot be read.
    """
    newest = time.time() - grace_s
    contents = [entry for entry in store.entries("blobs/") if entry.modified_at <= newest]
    unfinished = [entry for entry in store.unfinished() if entry.modified_at <= newest]
    named = _named_contents(store)
    found = [
        Leftover(what="unreferenced content", entry=entry)
        for entry in contents
        if entry.key not in named
    ]
    found += [Leftover(what="unfinished write", entry=entry) for entry in unfinished]
    return sorted(found, key=lambda leftover: leftover.entry.key)


def _named_contents(store: Sweepable) -> set[str]:
    # Every record, of kinds too that this lorid does not know: those it cannot read stop it.
    addresses = (
        address
        for address, _, last in (entry.key.rpartition("/") for entry in store.entries(""))
        if last == "record.json" and not address.startswith("blobs/")
    )
    return {
        f"blobs/{entry.sha256}"
        for record in load_records(store, addresses)
        for entry in record.files
    }


def remove_leftovers(
    store: Sweepable,
    leftovers: Sequence[Leftover],
    *,
    grace_s: float,
    removed: Callable[[Leftover], None],
) -> None:
    """Remove them, but for contents that somebody has stored again meanwhile."""
    for leftover in leftovers:
        key = leftover.entry.key
        if leftover.what == "unfinished write":
            store.discard(leftover.entry)
        elif all(
            entry.modified_at <= time.time() - grace_s
            for entry in store.entries(key)
            if entry.key == key
        ):
            store.remove(key)
        else:
            continue
        removed(leftover)
