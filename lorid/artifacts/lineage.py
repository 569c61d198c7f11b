"""What came from what: a run's artifacts as a tree, from data over the triple to the grade.

    for line in draw_lineage(records_of(store, "demo")): print(line)

An artifact with several parents stands below the one that took the longest way from the data, and
names the others.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import get_args

from lorid.artifacts.records import (
    Kind,
    Record,
    addresses_below,
    by_age,
    load_record,
    load_records,
)
from lorid.artifacts.store import ArtifactStore
from lorid.errors import ArtifactIncomplete

SHOWN_DETAILS = ("num_problems", "num_kept", "num_train", "num_test", "accuracy", "final_loss")
_MIB = 1024**2


def records_of(store: ArtifactStore, run: str) -> list[Record]:
    """A run's records and whatever they came from, in other runs too, oldest first."""
    # Only what bears its name is read: a store holds many runs.
    kinds = (kind for kind in get_args(Kind) if kind != "adapter")
    prefixes = [f"{kind}/{run}/" for kind in kinds]
    prefixes += [f"adapter/{run}/", f"adapter/{run}-"]
    addresses = (address for prefix in prefixes for address in addresses_below(store, prefix))
    found = {record.address: record for record in load_records(store, addresses)}
    wanted = [parent for record in found.values() for parent in record.parents]
    while wanted:
        address = wanted.pop()
        if address in found:
            continue
        try:
            found[address] = load_record(store, address)
        except ArtifactIncomplete:  # drawn as missing
            continue
        wanted += found[address].parents
    return sorted(found.values(), key=by_age)


def draw_lineage(records: Sequence[Record]) -> list[str]:
    """The tree's lines."""
    by_address = {record.address: record for record in records}
    depth_of = _depths(by_address)
    children: dict[str | None, list[Record]] = {}
    for record in records:
        near = max(
            (parent for parent in record.parents if parent in by_address),
            key=depth_of,
            default=None,
        )
        children.setdefault(near, []).append(record)
    return [
        line
        for root in children.get(None, [])
        for line in _draw(root, children, above=None, stem="", branch="")
    ]


def _depths(by_address: Mapping[str, Record]) -> Callable[[str], int]:
    depths: dict[str, int] = {}

    def depth(address: str) -> int:
        if address not in depths:
            depths[address] = 0  # what a forged circle finds when it comes round
            parents = by_address[address].parents if address in by_address else ()
            depths[address] = 1 + max((depth(parent) for parent in parents), default=0)
        return depths[address]

    return depth


def _draw(
    record: Record,
    children: Mapping[str | None, Sequence[Record]],
    *,
    above: str | None,
    stem: str,
    branch: str,
) -> Iterator[str]:
    below = children.get(record.address, [])
    yield f"{stem}{branch}{_describe(record, above=above)}"
    inner = stem + {"": "", "|-- ": "|   ", "`-- ": "    "}[branch]
    for child in below:
        end = "`-- " if child is below[-1] else "|-- "
        yield from _draw(child, children, above=record.address, stem=inner, branch=end)


def _describe(record: Record, *, above: str | None) -> str:
    size = sum(entry.size for entry in record.files) / _MIB
    details = " ".join(
        f"{name}={record.details[name]}" for name in SHOWN_DETAILS if name in record.details
    )
    others = [parent for parent in record.parents if parent != above]
    parts = [record.address, record.created_at[:19], f"{record.seconds:.0f} s", f"{size:.1f} MiB"]
    if details:
        parts.append(details)
    if others:
        parts.append(f"also from {', '.join(others)}")
    return "  ".join(parts)
