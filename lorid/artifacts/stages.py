"""A stage: find its artifact or make it.

    record = run_stage(store, kind="data", name="demo", inputs={...}, parents=(),
                       build=lambda folder: write_files(folder), announce=print)

Whatever stops `build`, Ctrl-C too, publishes nothing: the next run starts the stage again.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorid.artifacts.records import (
    Detail,
    Kind,
    Record,
    differences,
    find,
    list_records,
    publish,
)
from lorid.artifacts.store import ArtifactStore

MAX_SHOWN_DIFFERENCES = 4


def run_stage(
    store: ArtifactStore,
    *,
    kind: Kind,
    name: str,
    inputs: Mapping[str, Any],
    parents: Sequence[str],
    build: Callable[[Path], Mapping[str, Detail]],
    announce: Callable[[str], None],
) -> Record:
    """The stage's record: the one in the store when its inputs match, else that of a new artifact.

    `build` gets an empty folder, fills it, and returns details for the record.
    """
    done = find(store, kind=kind, name=name, inputs=inputs)
    if done is not None:
        announce(f"  {done.address}: already done, skipped")
        return done
    announce_differences(store, kind=kind, name=name, inputs=inputs, announce=announce)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lorid-") as folder:
        details = build(Path(folder))
        record = publish(
            store,
            Path(folder),
            kind=kind,
            name=name,
            inputs=inputs,
            parents=parents,
            details=details,
            seconds=time.monotonic() - started,
        )
    announce(f"  {record.address}: done in {record.seconds:.0f} s")
    return record


def announce_differences(
    store: ArtifactStore,
    *,
    kind: Kind,
    name: str,
    inputs: Mapping[str, Any],
    announce: Callable[[str], None],
) -> None:
    """Say in what these inputs differ from the newest artifact of that name, if there is one.

    One that was made in another way, such as a triple's evaluation without its run's config, has
    other inputs altogether: it is passed over.
    """
    older = [
        record
        for record in list_records(store, kind=kind, name=name)
        if 2 * len(record.inputs.keys() & inputs.keys()) > len(record.inputs.keys() | inputs.keys())
    ]
    if older:
        changed = differences(older[-1], inputs)
        shown = "; ".join(changed[:MAX_SHOWN_DIFFERENCES])
        more = len(changed) - MAX_SHOWN_DIFFERENCES
        announce(f"  changed since {older[-1].address}: {shown}{f'; {more} more' * (more > 0)}")
