"""What an address names: KIND/NAME/VERSION, or KIND/NAME, the newest of them.

named_record(store, "evaluation/my-run")
"""

from typing import get_args

from lorid.artifacts.records import Kind, Record, list_records, load_record
from lorid.artifacts.store import ArtifactStore
from lorid.errors import ArtifactIncomplete


def named_record(store: ArtifactStore, address: str) -> Record:
    """The record that an address names.

    Raises:
        ArtifactIncomplete: the store holds none.
    """
    kind, _, name = address.partition("/")
    kinds = [one for one in get_args(Kind) if one == kind]
    if not kinds or not name or "/" in name:
        return load_record(store, address)
    records = list_records(store, kind=kinds[0], name=name)
    if not records:
        raise ArtifactIncomplete(
            f"{store.uri} holds no {address}; `lorid runs list --store {store.uri}` lists all"
        )
    return records[-1]
