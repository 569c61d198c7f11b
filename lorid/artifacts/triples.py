"""The triple: three adapters that belong together, and one manifest that says all about them.

    record = resolve_triple(store, "gsm8k")            # newest; or NAME/VERSION, or @ALIAS
    manifest = read_manifest(store, record)

A triple is an artifact of kind "triple": `adapters/{role}/` in PEFT's format, `triple.json` (the
manifest) and, from a run, the run's `config.yaml`. What is evaluated must exist first, and
artifacts do not change, so an evaluation is not in the manifest of the store's triple: it is the
evaluation artifact that names the triple as its parent (`evaluation_of`). An exported manifest
carries it.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from lorid.artifacts.adapters import WEIGHTS_FILE, AdapterInfo, check_adapter
from lorid.artifacts.aliases import current_entry
from lorid.artifacts.hashes import file_sha256, weights_sha256
from lorid.artifacts.records import Record, by_age, iter_records, list_records, load_record
from lorid.artifacts.store import ArtifactStore
from lorid.config import (
    NAME_PATTERN,
    EndpointConfig,
    EngineConfig,
    FeedbackConfig,
    ModelConfig,
    SamplingConfig,
    Section,
)
from lorid.errors import (
    AdapterMismatch,
    ArtifactDrifted,
    ArtifactIncomplete,
    ConfigError,
    DataError,
)
from lorid.method.grader import GRADER_VERSION
from lorid.method.roles import Role

TRIPLE_FORMAT = 1
MANIFEST_FILE = "triple.json"
ADAPTERS_FOLDER = "adapters"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BaseIdentity(Section):
    """The model that the adapters were made for.

    `identity` decides whether two bases are the same: `folder:HASH` of a folder's content, or
    `ID@REVISION` of a hub.
    """

    name: Annotated[str, Field(min_length=1, max_length=1000)]
    revision: Annotated[str, Field(max_length=200)] | None = None
    identity: Annotated[str, Field(min_length=1, max_length=1300)]
    family: str
    dtype: str

    def model(self) -> ModelConfig:
        """The base as a config names it."""
        return ModelConfig.model_validate(
            {"path": self.name, "family": self.family, "revision": self.revision,
             "dtype": self.dtype}
        )  # fmt: skip


class AdapterEntry(Section):
    """One adapter: where it came from in its store (None: imported), its weights and settings."""

    address: str | None
    weights_sha256: Sha256
    rank: Annotated[int, Field(ge=1)]
    alpha: Annotated[float, Field(gt=0)]
    target_modules: Annotated[tuple[str, ...], Field(min_length=1, max_length=64)]


class Source(Section):
    """What the adapters learnt from: address and fingerprint of an artifact."""

    address: str
    fingerprint: Sha256


class EvaluationResult(Section):
    """How a triple did on its run's test split; a problem that failed counts as not correct."""

    address: str
    num_problems: int
    num_correct: int
    num_errors: int
    accuracy: float
    mean_rounds: float
    grader_version: int


class TripleManifest(Section):
    """All about one triple; `triple.json`."""

    format: Literal[1] = TRIPLE_FORMAT
    name: Annotated[str, Field(pattern=NAME_PATTERN)]
    base: BaseIdentity
    adapters: dict[Role, AdapterEntry]
    sampling: SamplingConfig
    feedback: FeedbackConfig
    engine: EngineConfig
    seed: int
    grader_version: int
    data: Source | None = None
    knowledge: Source | None = None
    evaluation: EvaluationResult | None = None

    @model_validator(mode="after")
    def _whole(self) -> "TripleManifest":
        missing = [str(role) for role in Role if role not in self.adapters]
        if missing:
            raise ValueError(f"adapters of {', '.join(missing)} are missing")
        self.base.model()
        return self

    @property
    def max_rank(self) -> int:
        """The highest rank of the three."""
        return max(entry.rank for entry in self.adapters.values())

    def endpoint(self, *, store: str) -> EndpointConfig:
        """The config of an endpoint that serves this triple by its own defaults."""
        return EndpointConfig(
            name=self.name,
            store=store,
            seed=self.seed,
            student=self.base.model(),
            sampling=self.sampling,
            engine=self.engine,
            feedback=self.feedback,
        )


def make_manifest(
    config: EndpointConfig,
    *,
    folders: Mapping[Role, Path],
    addresses: Mapping[Role, str | None],
    data: Source | None = None,
    knowledge: Source | None = None,
    evaluation: EvaluationResult | None = None,
) -> TripleManifest:
    """The manifest of adapter folders, read from their files.

    Raises:
        AdapterMismatch: an adapter is unsound, or does not fit the base as far as that is at hand.
    """
    base = identify_base(config.student)
    shapes = base_shapes(config.student)
    return TripleManifest(
        name=config.name,
        base=base,
        adapters={
            role: _adapter_entry(check_adapter(folder, base=shapes), address=addresses.get(role))
            for role, folder in folders.items()
        },
        sampling=config.sampling,
        feedback=config.feedback,
        engine=config.engine,
        seed=config.seed,
        grader_version=GRADER_VERSION,
        data=data,
        knowledge=knowledge,
        evaluation=evaluation,
    )


def parse_manifest(text: bytes, *, source: str) -> TripleManifest:
    """A manifest from JSON.

    Raises:
        ArtifactDrifted: it is damaged, or from another version of lorid.
    """
    try:
        return TripleManifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole file)"
        raise ArtifactDrifted(
            f"{source}: {MANIFEST_FILE}, {field}: {first['msg'].removeprefix('Value error, ')}; "
            "it is damaged, or of another version of lorid"
        ) from error


def dump_manifest(manifest: TripleManifest) -> bytes:
    """The manifest as JSON; `parse_manifest` reads it back equal."""
    return (manifest.model_dump_json(indent=1) + "\n").encode()


def read_manifest(store: ArtifactStore, record: Record) -> TripleManifest:
    """The manifest of a triple in a store; its adapters are the ones that the record names.

    Raises:
        ArtifactIncomplete: the triple is older than manifests.
        ArtifactDrifted: manifest and record do not agree.
    """
    entries = {entry.path: entry for entry in record.files}
    if MANIFEST_FILE not in entries:
        raise ArtifactIncomplete(
            f"{record.address} was bound before triples had a {MANIFEST_FILE}; run "
            "jobs/train_adapters.py with its config again: it binds anew without training"
        )
    text = store.read(f"blobs/{entries[MANIFEST_FILE].sha256}")
    if hashlib.sha256(text).hexdigest() != entries[MANIFEST_FILE].sha256:
        raise ArtifactDrifted(f"{record.address}: {MANIFEST_FILE} differs from its record")
    manifest = parse_manifest(text, source=record.address)
    for role, adapter in manifest.adapters.items():
        weights = entries.get(f"{ADAPTERS_FOLDER}/{role}/{WEIGHTS_FILE}")
        if weights is None or weights.sha256 != adapter.weights_sha256:
            raise ArtifactDrifted(
                f"{record.address}: {MANIFEST_FILE} and the record name different weights of {role}"
            )
    return manifest


def resolve_triple(store: ArtifactStore, reference: str) -> Record:
    """The triple that NAME (the newest), NAME/VERSION, triple/NAME/VERSION or @ALIAS names.

    Raises:
        DataError: the reference is malformed.
        ArtifactIncomplete: the store holds no such triple or alias.
    """
    if reference.startswith("@"):
        entry = current_entry(store, reference[1:])
        if entry is None:
            raise ArtifactIncomplete(
                f"{store.uri} has no alias {reference[1:]!r}; make it: "
                f"lorid triple promote NAME --to {reference[1:]} --store {store.uri}"
            )
        return _load(store, entry.target)
    name, _, version = reference.removeprefix("triple/").partition("/")
    if not re.fullmatch(NAME_PATTERN, name) or "/" in version:
        raise DataError(f"triple {reference!r}: expected NAME, NAME/VERSION or @ALIAS")
    if version:
        return _load(store, f"triple/{name}/{version}")
    records = list_records(store, kind="triple", name=name)
    if not records:
        raise ArtifactIncomplete(
            f"{store.uri} holds no triple named {name!r}; `lorid triple list --store {store.uri}` "
            "lists them, jobs/distill.py trains one, `lorid triple import` takes one in"
        )
    return records[-1]


def evaluation_of(store: ArtifactStore, record: Record) -> EvaluationResult | None:
    """The newest evaluation of a triple: an evaluation artifact that names it as its parent."""
    found = newest_results(iter_records(store, kind="evaluation", name=record.name))
    return found.get(record.address)


def newest_results(evaluations: Iterable[Record]) -> dict[str, EvaluationResult]:
    """The newest result of each triple that evaluations name as their parent, by its address."""
    newest: dict[str, tuple[tuple[str, str], EvaluationResult]] = {}
    for one in evaluations:
        # On questions of its own it says something else; it is the run's test split that counts.
        if {"evaluation.questions", "evaluation.num_questions"} & one.inputs.keys():
            continue
        details = {name: one.details.get(name) for name in EvaluationResult.model_fields}
        try:
            result = EvaluationResult.model_validate({**details, "address": one.address})
        except ValidationError:
            # An evaluation from before it counted: its attempts can be replayed instead.
            continue
        for parent in one.parents:
            if parent not in newest or newest[parent][0] < by_age(one):
                newest[parent] = (by_age(one), result)
    return {parent: result for parent, (_, result) in newest.items()}


def verify_folders(
    manifest: TripleManifest, folders: Mapping[Role, Path], *, base: ModelConfig | None = None
) -> list[tuple[str, str]]:
    """What was checked of a triple's files, as (what, finding); `base` overrides the manifest's.

    Raises:
        AdapterMismatch, ArtifactDrifted: the first thing that is wrong.
    """
    model = base or manifest.base.model()
    shapes = base_shapes(model)
    names: set[tuple[str | None, str | None]] = set()
    for role, entry in manifest.adapters.items():
        info = check_adapter(folders[role], base=shapes)
        if _adapter_entry(info, address=entry.address) != entry:
            raise ArtifactDrifted(f"{folders[role]}: the adapter differs from {MANIFEST_FILE}")
        names.add((info.config.base_model_name_or_path, info.config.revision))
    # One base may have lain in different folders: then its content, which was hashed, decides.
    if len(names) > 1 and not all(name and Path(name).is_absolute() for name, _ in names):
        raise AdapterMismatch(
            "the adapters name different bases: "
            + ", ".join(
                f"{name} at revision {revision}" for name, revision in sorted(names, key=str)
            )
        )
    ranks = ", ".join(f"{entry.rank}" for entry in manifest.adapters.values())
    findings = [
        ("adapters", f"three, sound and as {MANIFEST_FILE} says; ranks {ranks}"),
        ("shapes", "fit the base" if shapes else "agree with each other; the base is not at hand"),
    ]
    at_hand = Path(model.path).is_dir()
    if at_hand and identify_base(model).identity != manifest.base.identity:
        if manifest.base.identity.startswith("folder:"):
            raise AdapterMismatch(
                f"{model.path} is not the base of this triple: its content is "
                f"{identify_base(model).identity}, the triple was made on {manifest.base.identity}"
            )
        at_hand = False
    pinned = manifest.base.revision or manifest.base.identity.startswith("folder:")
    found = "same content" if at_hand else "named alike by the three"
    note = "" if pinned else "; no revision is pinned: set student.revision"
    findings.append(("base", f"{manifest.base.name}: {found}{note}"))
    findings.append(("family", manifest.base.family))
    return findings


def identify_base(model: ModelConfig) -> BaseIdentity:
    """A model's identity: of a folder its content, of a hub model its name and revision."""
    return BaseIdentity(
        name=model.path,
        revision=model.revision,
        identity=model_identity(model),
        family=model.family,
        dtype=model.dtype,
    )


def model_identity(model: ModelConfig) -> str:
    """`folder:HASH` of weights, config and tokenizer of a folder, or `ID@REVISION`."""
    folder = Path(model.path)
    if not folder.is_dir():
        return f"{model.path}@{model.revision}"
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model"):
            # Shortened as before: versions of artifacts are made of this.
            digest.update(path.name.encode() + weights_sha256(path)[:16].encode())
    return f"folder:{digest.hexdigest()[:16]}"


def base_shapes(model: ModelConfig) -> Mapping[str, Any] | None:
    """The base's config.json when it is at hand without a download: a folder, or the hub's cache.

    Raises:
        ConfigError: it is there and cannot be read.
    """
    path = Path(model.path) / "config.json"
    if not Path(model.path).is_dir():
        if not HUB_ID.fullmatch(model.path):
            return None
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model.path, "config.json", revision=model.revision)
        if not isinstance(cached, str):
            return None
        path = Path(cached)
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read the base's {path}: {error}") from error


def role_folders(folder: Path) -> dict[Role, Path]:
    """Where a fetched triple has its adapters."""
    return {role: folder / ADAPTERS_FOLDER / role for role in Role}


def _adapter_entry(info: AdapterInfo, *, address: str | None) -> AdapterEntry:
    return AdapterEntry(
        address=address,
        weights_sha256=file_sha256(info.folder / WEIGHTS_FILE),
        rank=info.rank,
        alpha=info.config.lora_alpha,
        target_modules=info.target_modules,
    )


def _load(store: ArtifactStore, address: str) -> Record:
    try:
        return load_record(store, address)
    except ArtifactIncomplete as error:
        raise ArtifactIncomplete(
            f"{store.uri} holds no {address}; `lorid triple list --store {store.uri}` lists triples"
        ) from error
