"""A triple as a folder that any `peft` or `vllm` user can load, and back.

    export_triple(store, record, into=Path("out"))
    import_triple(store, [Path("out")], name="mine")

    out/triple.json  README.md
    out/intuitive_reasoner/  knowledge_generator/  deep_reasoner/
        adapter_model.safetensors  adapter_config.json  README.md
        training.json and the tokenizer's files, where lorid trained the adapter

What comes in is not trusted: links are not followed, pickled files are refused by name and by their
first bytes, sizes are bounded, names in the files never become paths, and adapter_config.json is
written anew from the fields that were checked.
"""

import errno
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from lorid.artifacts.adapters import (
    CONFIG_FILE,
    MAX_CONFIG_BYTES,
    WEIGHTS_FILE,
    AdapterConfig,
    read_adapter_config,
)
from lorid.artifacts.cards import adapter_card, triple_card
from lorid.artifacts.pickles import refuse_pickle
from lorid.artifacts.records import Record, fetch, publish
from lorid.artifacts.store import ArtifactStore
from lorid.artifacts.training_record import (
    TrainingRecord,
    read_training_record,
    write_training_record,
)
from lorid.artifacts.triples import (
    HUB_ID,
    MANIFEST_FILE,
    BaseIdentity,
    TripleManifest,
    dump_manifest,
    evaluation_of,
    identify_base,
    make_manifest,
    parse_manifest,
    read_manifest,
    role_folders,
    verify_folders,
)
from lorid.config import NAME_PATTERN, EndpointConfig, ModelConfig
from lorid.errors import AdapterMismatch, ArtifactDrifted, DataError, LoridError
from lorid.method.roles import Role

MAX_WEIGHTS_BYTES = 32 * 1024**3
MAX_FILES = 1000
_COPY_BYTES = 4 * 1024**2
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]{0,60}")


def export_triple(
    store: ArtifactStore,
    record: Record,
    *,
    into: Path,
    base_name: str | None = None,
    license_id: str = "unknown",
) -> TripleManifest:
    """Write a hub-style folder; `base_name` replaces the base's name, say a local path, for others.

    Raises:
        DataError: the folder holds something already, or a name is malformed.
        ArtifactError: the triple cannot be read.
    """
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise DataError(f"{into} is not an empty folder; choose another one")
    if base_name is not None and not HUB_ID.fullmatch(base_name):
        raise DataError(f"base {base_name!r}: expected a hub id, such as mistralai/Mistral-7B-v0.1")
    if not _LICENSE.fullmatch(license_id):
        raise DataError(f"license {license_id!r}: expected an identifier, such as apache-2.0")
    manifest = read_manifest(store, record)
    base = manifest.base.model_copy(update={"name": base_name} if base_name else {})
    evaluation = evaluation_of(store, record) or manifest.evaluation
    manifest = manifest.model_copy(update={"base": base, "evaluation": evaluation})
    into.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that a failed export leaves no half of one there.
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".exporting-") as temporary:
        fetched, made = Path(temporary) / "fetched", Path(temporary) / "made"
        fetch(store, record, into=fetched)
        for role, folder in role_folders(fetched).items():
            (made / role).mkdir(parents=True)
            # First, so that whatever a record names, what was checked lies over it.
            training = _move_training(folder, made / role, base=base)
            shutil.move(folder / WEIGHTS_FILE, made / role / WEIGHTS_FILE)
            config = read_adapter_config(folder)
            (made / role / CONFIG_FILE).write_text(_clean_config(config, base))
            card = adapter_card(manifest, role, license_id=license_id, training=training)
            (made / role / "README.md").write_text(card, encoding="utf-8")
        (made / MANIFEST_FILE).write_bytes(dump_manifest(manifest))
        card = triple_card(manifest, license_id=license_id)
        (made / "README.md").write_text(card, encoding="utf-8")
        made.replace(into)
    return manifest


def import_triple(
    store: ArtifactStore,
    folders: Mapping[Role, Path] | Path,
    *,
    name: str,
    settings: EndpointConfig | None = None,
    base: ModelConfig | None = None,
) -> Record:
    """Take a triple in: an exported folder, or three adapter folders and their settings.

    Args:
        folders: one folder with three in it, or a folder for each role.
        settings: sampling, feedback and engine; an exported folder's `triple.json` has its own.
        base: the base and its prompt family; by default the one that the files name.

    Raises:
        DataError: a folder is not what it should be, or something is missing.
        ArtifactDrifted: a file is pickled, a link, too large, or differs from `triple.json`.
        AdapterMismatch: an adapter is unsound or does not fit.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise DataError(f"name {name!r}: expected lower case letters, digits, dot, dash or _")
    with tempfile.TemporaryDirectory(prefix="lorid-import-") as temporary:
        taken, folder = Path(temporary) / "taken", Path(temporary) / "triple"
        source: TripleManifest | None = None
        if isinstance(folders, Path):
            source = read_source(folders)
            folders = {role: folders / role for role in Role}
        for role, adapter in folders.items():
            refuse_dangerous(adapter)
            copy_regular(adapter / CONFIG_FILE, taken / role / CONFIG_FILE, MAX_CONFIG_BYTES)
            copy_regular(adapter / WEIGHTS_FILE, taken / role / WEIGHTS_FILE, MAX_WEIGHTS_BYTES)
        copies = {role: taken / role for role in Role}
        with _naming(folders, copies):
            if source is None:
                manifest = _manifest_of(copies, name=name, settings=settings, base=base)
            else:
                verify_folders(source, copies, base=base)
                manifest = _renamed(source, name=name, base=base)
        _write_triple(manifest, copies, into=folder)
        return publish(
            store,
            folder,
            kind="triple",
            name=name,
            inputs={"imported": manifest.model_dump(mode="json")},
            details={"imported": True},
        )


def read_source(folder: Path) -> TripleManifest | None:
    """The manifest in a folder that is to be imported, if it has one; the folder is checked.

    Raises:
        DataError, ArtifactDrifted: as for `import_triple`.
    """
    refuse_dangerous(folder)
    if not (folder / MANIFEST_FILE).exists():
        return None
    with tempfile.TemporaryDirectory(prefix="lorid-import-") as temporary:
        copy = Path(temporary) / MANIFEST_FILE
        copy_regular(folder / MANIFEST_FILE, copy, MAX_CONFIG_BYTES)
        return parse_manifest(copy.read_bytes(), source=str(folder))


def refuse_dangerous(folder: Path) -> None:
    """Raise when a folder that is to be imported holds links, pickled or odd files, or too many.

    Raises:
        DataError: it is not a folder.
        ArtifactDrifted: the first such file.
    """
    if folder.is_symlink():
        raise ArtifactDrifted(
            f"{folder} is a link; links are not followed, name the folder that it leads to"
        )
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; an adapter is a folder with {WEIGHTS_FILE}")
    num_files = 0
    for parent, names, files in os.walk(folder, followlinks=False):
        for entry in (Path(parent) / one for one in (*names, *files)):
            num_files += 1
            if num_files > MAX_FILES:
                raise ArtifactDrifted(f"{folder} holds more than {MAX_FILES} files")
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                raise ArtifactDrifted(
                    f"{entry} is a link; links are not followed: copy the files themselves "
                    "(hf download --local-dir does)"
                )
            if stat.S_ISDIR(mode):
                continue
            _open_regular(entry).close()
            try:
                refuse_pickle(entry)
            except ArtifactDrifted as error:
                raise ArtifactDrifted(
                    f"{entry} is pickled or archived, which can run code; "
                    "delete it and import again: only safetensors are read"
                ) from error


def copy_regular(source: Path, target: Path, max_bytes: int) -> None:
    """Copy one plain file, never through a link, and never more than `max_bytes`.

    Raises:
        DataError: it is missing or cannot be read.
        ArtifactDrifted: it is a link, no plain file, or too large.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with _open_regular(source) as file, target.open("wb") as copy:
        left = max_bytes
        while piece := file.read(_COPY_BYTES):
            left -= len(piece)
            if left < 0:
                raise ArtifactDrifted(f"{source} is larger than {max_bytes} bytes")
            copy.write(piece)


def _open_regular(path: Path) -> BinaryIO:
    try:
        # Not to wait for a writer of a pipe that somebody put there.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ArtifactDrifted(f"{path} is a link; links are not followed") from error
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise ArtifactDrifted(f"{path} is not a plain file")
    return os.fdopen(handle, "rb")


def _move_training(folder: Path, out: Path, *, base: BaseIdentity) -> TrainingRecord | None:
    """What training left beside the weights, for others: the record, and the tokenizer's files."""
    record = read_training_record(folder)
    if record is None:
        return None
    for name in record.tokenizer_files:
        if (folder / name).is_file():
            (out / name).parent.mkdir(exist_ok=True)
            shutil.move(folder / name, out / name)
    if record.base.name == base.name:
        base = base.model_copy(update={"revision": record.base.revision})
    record = record.model_copy(update={"base": base})
    write_training_record(record, out)
    return record


@contextmanager
def _naming(folders: Mapping[Role, Path], copies: Mapping[Role, Path]) -> Iterator[None]:
    """Errors about the copies name the folders that the user gave."""
    try:
        yield
    except LoridError as error:
        text = str(error)
        for role, copy in copies.items():
            text = text.replace(str(copy), str(folders[role]))
        raise type(error)(text) from error


def _manifest_of(
    copies: Mapping[Role, Path],
    *,
    name: str,
    settings: EndpointConfig | None,
    base: ModelConfig | None,
) -> TripleManifest:
    if settings is None:
        raise DataError(
            f"no {MANIFEST_FILE} says how these adapters are used; give a config: --preset or "
            "--config, and --base and --family where that names another base"
        )
    if base is None:
        named = {_named_base(copies[role]) for role in Role}
        if len(named) > 1:
            listed = ", ".join(sorted(f"{one[0]} at {one[1]}" for one in named))
            raise AdapterMismatch(f"the adapters name different bases ({listed}); give --base")
        path, revision = named.pop()
        update = {"path": path or settings.student.path, "revision": revision}
        base = settings.student.model_copy(update=update)
    if not Path(base.path).is_dir() and not HUB_ID.fullmatch(base.path):
        raise DataError(f"the base {base.path} is neither a folder here nor a hub id; give --base")
    config = settings.model_copy(update={"name": name, "student": base})
    return make_manifest(config, folders=copies, addresses={})


def _named_base(folder: Path) -> tuple[str | None, str | None]:
    config = read_adapter_config(folder)
    return config.base_model_name_or_path, config.revision


def _renamed(source: TripleManifest, *, name: str, base: ModelConfig | None) -> TripleManifest:
    """The manifest under another name; of a base given here, content decides as before."""
    identity = source.base
    if base is not None:
        given = identify_base(base)
        known = given.identity.startswith("folder:") or not identity.identity.startswith("folder:")
        identity = given if known else given.model_copy(update={"identity": identity.identity})
    adapters = {
        role: entry.model_copy(update={"address": None}) for role, entry in source.adapters.items()
    }
    return TripleManifest.model_validate(
        source.model_copy(
            update={"name": name, "base": identity, "adapters": adapters}
        ).model_dump()
    )


def _write_triple(manifest: TripleManifest, copies: Mapping[Role, Path], *, into: Path) -> None:
    for role, folder in role_folders(into).items():
        folder.mkdir(parents=True)
        shutil.move(copies[role] / WEIGHTS_FILE, folder / WEIGHTS_FILE)
        config = read_adapter_config(copies[role])
        (folder / CONFIG_FILE).write_text(_clean_config(config, manifest.base))
    (into / MANIFEST_FILE).write_bytes(dump_manifest(manifest))


def _clean_config(config: AdapterConfig, base: BaseIdentity) -> str:
    """PEFT's adapter_config.json with the checked fields alone, and this base."""
    fields = config.model_dump(mode="json", exclude_none=True)
    if config.base_model_name_or_path != base.name:
        # Another name's commits are others.
        fields.pop("revision", None)
    alpha = config.lora_alpha
    fields |= {
        "base_model_name_or_path": base.name,
        # PEFT says that this is a whole number; it works with others too.
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "target_modules": sorted(set(config.target_modules)),
    }
    fields |= {"revision": base.revision} if base.revision else {}
    return json.dumps(fields, indent=2) + "\n"
