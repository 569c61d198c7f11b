"""Where a replica gets its triple from: a pinned one, or whatever an alias points at.

    parse_address("s3://bucket/lorid@production")   # follows the alias
    parse_address("lorid-demo/store#demo")          # the newest triple of that run, as of now
    parse_address("lorid-demo/store#demo/0123456789ab")

Everything here is blocking I/O: the switch calls it in a thread. Copies on a node's disk are shared
by its replicas, verified before each use, and bounded in number.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lorid.artifacts.aliases import current_entry, history, standing_targets
from lorid.artifacts.cards import facts_of
from lorid.artifacts.copies import Copy, fetch_once, node_cache
from lorid.artifacts.records import load_record
from lorid.artifacts.store import open_store
from lorid.artifacts.triples import BaseIdentity, evaluation_of, read_manifest, role_folders
from lorid.config import EndpointConfig, change_endpoint
from lorid.errors import AdapterMismatch, ConfigError
from lorid.method.roles import Role

_ADDRESS = re.compile(r"(?P<store>.+)(?P<mark>[#@])(?P<name>[^#@]+)")


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A triple that should be served; `number` tells two wishes for the same one apart."""

    address: str
    number: int = 0


@dataclass(frozen=True, kw_only=True)
class TripleFiles:
    """A triple on this node: its adapters, and its own defaults under the endpoint's overrides.

    `facts` are what its card says.

    As long as it lives, the node's copy stays: the engine may read an adapter again.
    """

    address: str
    folders: Mapping[Role, Path]
    config: EndpointConfig
    copy: Copy | None = None
    facts: Sequence[tuple[str, str]] = ()


class TripleSource(Protocol):
    """Says which triple to serve, and fetches it; must survive a pickle."""

    def wanted(self) -> Wanted:
        """The triple that should be served now."""
        ...

    def earlier(self) -> Sequence[Wanted]:
        """What a replica that starts may serve instead when the wanted one is refused."""
        ...

    def fetch(self, address: str) -> TripleFiles:
        """The triple's files, verified.

        Raises:
            AdapterMismatch: it was made for another base.
            ArtifactError: it is damaged, or the store cannot be read.
        """
        ...


class StoredTriple:
    """A triple in a store: the one at `address`, or what `alias` points at.

    `base` is what the endpoint runs: a triple of another one is refused. `overrides` are the
    endpoint's changes, which hold for every triple that it serves.
    """

    def __init__(
        self,
        *,
        store: str,
        base: BaseIdentity,
        address: str,
        alias: str | None = None,
        overrides: Sequence[str] = (),
    ) -> None:
        # Stores travel without their connections, and each process opens its own once.
        self.store = open_store(store)
        self.base, self.address, self.alias = base, address, alias
        self.overrides = tuple(overrides)

    def wanted(self) -> Wanted:
        """See `TripleSource`."""
        if self.alias is None:
            return Wanted(address=self.address)
        entry = current_entry(self.store, self.alias)
        if entry is None:
            # Somebody removed the alias: what it pointed at when the endpoint was made stays.
            return Wanted(address=self.address)
        return Wanted(address=entry.target, number=entry.number)

    def earlier(self) -> Sequence[Wanted]:
        """See `TripleSource`: what stood before, newest first, then the endpoint's first one."""
        if self.alias is None:
            return ()
        standing = standing_targets(history(self.store, self.alias))
        return [Wanted(address=one) for one in dict.fromkeys([*standing[-2::-1], self.address])]

    def fetch(self, address: str) -> TripleFiles:
        """See `TripleSource`."""
        record = load_record(self.store, address)
        manifest = read_manifest(self.store, record)
        ours, theirs = self.base, manifest.base
        if (ours.identity, ours.family) != (theirs.identity, theirs.family):
            raise AdapterMismatch(
                f"{address} was made for {theirs.name} ({theirs.identity}, family {theirs.family})"
                f", this endpoint runs {ours.name} ({ours.identity}, family {ours.family}); "
                "another base needs a new deployment"
            )
        copy = fetch_once(self.store, record, cache=node_cache("triples"))
        config = change_endpoint(
            manifest.endpoint(store=self.store.uri), self.overrides, source=address
        )
        evaluation = evaluation_of(self.store, record)
        return TripleFiles(
            address=address,
            folders=role_folders(copy.folder),
            config=config,
            copy=copy,
            facts=facts_of(manifest.model_copy(update={"evaluation": evaluation})),
        )


@dataclass(frozen=True, kw_only=True)
class Address:
    """`STORE#TRIPLE` or `STORE@ALIAS`, in parts; `reference` is what `resolve_triple` takes."""

    store: str
    reference: str

    @property
    def alias(self) -> str | None:
        """The alias to follow, if it is one."""
        return self.reference[1:] if self.reference.startswith("@") else None


def parse_address(run: str) -> Address:
    """The parts of an address; the last `#` or `@` divides it.

    Raises:
        ConfigError: it is malformed.
    """
    match = _ADDRESS.fullmatch(run)
    if match is None:
        raise ConfigError(
            f"run={run!r}: expected STORE#NAME, STORE#NAME/VERSION or STORE@ALIAS, "
            "such as s3://bucket/lorid#gsm8k or s3://bucket/lorid@production"
        )
    mark = "@" if match["mark"] == "@" else ""
    return Address(store=match["store"], reference=mark + match["name"])
