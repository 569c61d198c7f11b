"""`lorid triple`: the three adapters that belong together, in a store, under aliases, on a hub."""

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from lorid.cli import completion
from lorid.cli.app import DEFAULT_STORE, AsJson, Store, app, say_next
from lorid.errors import ArtifactIncomplete, LoridError

if TYPE_CHECKING:
    from lorid.artifacts.aliases import AliasEntry
    from lorid.artifacts.records import Record
    from lorid.artifacts.store import ArtifactStore
    from lorid.artifacts.triples import EvaluationResult, TripleManifest
    from lorid.config import ModelConfig
    from lorid.method.roles import Role

triple_app = typer.Typer(
    help="Triples: check, promote, roll back, export, import.\n\nExample: lorid triple show demo",
    no_args_is_help=True,
)
app.add_typer(triple_app, name="triple")

Reference = Annotated[
    str,
    typer.Argument(
        help="NAME (the newest), NAME/VERSION or @ALIAS", autocompletion=completion.triples
    ),
]
Alias = Annotated[
    str,
    typer.Argument(help="an alias, such as production", autocompletion=completion.aliases),
]
Expect = Annotated[
    str | None,
    typer.Option(help="only if the alias points at this version now ('none': at nothing)"),
]


@triple_app.command("list")
def triple_list(store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """List the triples in a store, and the aliases that point at them.

    Example: lorid triple list --store s3://bucket/lorid
    """
    from lorid.artifacts.aliases import alias_names, current_entry
    from lorid.artifacts.at_once import each_at_once
    from lorid.artifacts.records import NUM_SMALL_FILES_AT_ONCE, iter_records
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import newest_results

    opened = open_store(store)
    aliases: dict[str, list[str]] = {}
    for alias in alias_names(opened):
        if entry := current_entry(opened, alias):
            aliases.setdefault(entry.target, []).append(alias)
    # All evaluations at once: each triple's own would be looked up again and again.
    results = newest_results(iter_records(opened, kind="evaluation"))
    rows = sorted(
        each_at_once(
            lambda record: _listed(
                opened,
                record,
                aliases=aliases.get(record.address, []),
                result=results.get(record.address),
            ),
            iter_records(opened, kind="triple"),
            num_at_once=NUM_SMALL_FILES_AT_ONCE,
        ),
        key=lambda row: (row["made"], row["triple"]),
    )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    if not rows:
        typer.echo(f"{store} holds no triples", err=True)
        say_next("python jobs/train_adapters.py --config run.yaml, or lorid triple import --help")
        return
    table = Table(box=None, pad_edge=False)
    for column in ("triple", "made", "base", "rank", "accuracy", "aliases"):
        table.add_column(column, no_wrap=True, overflow="ignore")
    for row in rows:
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        base = Path(row["base"]).name if row["base"] else "no triple.json"
        cells = (row["triple"], row["made"][:16], base, str(row["rank"] or "-"), accuracy)
        table.add_row(*cells, ", ".join(row["aliases"]))
    # Addresses are for copying: a narrow terminal wraps the line rather than cutting them.
    Console(width=200).print(table)


def _listed(
    store: "ArtifactStore",
    record: "Record",
    *,
    aliases: list[str],
    result: "EvaluationResult | None",
) -> dict[str, Any]:
    from lorid.artifacts.triples import read_manifest

    row = {"triple": record.address, "made": record.created_at, "aliases": aliases}
    try:
        manifest = read_manifest(store, record)
    except LoridError as error:
        return row | {"base": None, "rank": None, "accuracy": None, "problem": str(error)}
    result = result or manifest.evaluation
    accuracy = result.accuracy if result else None
    row |= {"base": manifest.base.name, "rank": manifest.max_rank, "accuracy": accuracy}
    return row | {"problem": None}


@triple_app.command("show")
def triple_show(triple: Reference, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Show all about one triple.

    Adapters, base, defaults, origin, evaluation, aliases.

    Example: lorid triple show demo --store lorid-demo/store
    """
    from lorid.artifacts.aliases import alias_names, current_entry
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import evaluation_of
    from lorid.method.grader import GRADER_VERSION

    opened = open_store(store)
    record, manifest = opened_triple(store, triple)
    result = evaluation_of(opened, record) or manifest.evaluation
    entries = [current_entry(opened, alias) for alias in alias_names(opened)]
    aliases = [one.alias for one in entries if one and one.target == record.address]
    if as_json:
        body = manifest.model_copy(update={"evaluation": result}).model_dump(mode="json")
        typer.echo(json.dumps({"triple": record.address, "aliases": aliases, **body}))
        return
    lines = [
        ("triple", record.address),
        ("aliases", ", ".join(aliases) or "none"),
        ("base", f"{manifest.base.name} ({manifest.base.identity})"),
        ("family", manifest.base.family),
        ("sampling", _flat(manifest.sampling.model_dump())),
        ("feedback", _flat(manifest.feedback.model_dump())),
        ("grader", f"version {manifest.grader_version}; this lorid has {GRADER_VERSION}"),
        ("data", manifest.data.address if manifest.data else "unknown"),
        ("knowledge", manifest.knowledge.address if manifest.knowledge else "unknown"),
        ("evaluation", "none" if result is None else _told(result.model_dump())),
    ]
    for role, entry in manifest.adapters.items():
        origin = entry.address or "imported"
        lines.append(
            (role.short, f"rank {entry.rank}, alpha {entry.alpha:g}, {origin}, "
             f"sha256 {entry.weights_sha256[:12]}")
        )  # fmt: skip
    for name, value in lines:
        typer.echo(f"{name:<12}{value}")


@triple_app.command("verify")
def triple_verify(
    triple: Reference,
    store: Store = DEFAULT_STORE,
    base: Annotated[str | None, typer.Option(help="folder of the base, if it moved")] = None,
    probe: Annotated[
        bool, typer.Option("--probe", help="load the engine; each adapter must answer")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check a triple: files and hashes, shapes, base, family.

    With --probe a real engine loads it, and each adapter must answer unlike the base. Exit code
    2 when something is wrong; the line says what.

    Example: lorid triple verify demo --store lorid-demo/store --probe
    """
    from lorid.artifacts.records import fetch
    from lorid.artifacts.store import open_store
    from lorid.artifacts.training_record import check_records
    from lorid.artifacts.triples import role_folders, verify_folders

    record, manifest = opened_triple(store, triple)
    model = manifest.base.model()
    if base is not None:
        model = model.model_copy(update={"path": base})
    findings: list[tuple[str, str]] = []
    problem: LoridError | None = None
    with tempfile.TemporaryDirectory(prefix="lorid-verify-") as temporary:
        try:
            folders = role_folders(fetch(open_store(store), record, into=Path(temporary)))
            findings.append(("files", f"{len(record.files)}, sizes and hashes as recorded"))
            findings += verify_folders(manifest, folders, base=model)
            findings.append(("training", check_records(manifest, folders)))
            if probe:
                findings.append(("probe", _probed(manifest, model, folders)))
        except LoridError as error:
            # Where it was unpacked for this check means nothing to anybody.
            problem = type(error)(str(error).replace(f"{temporary}/", ""))
    if as_json:
        body = {"triple": record.address, "ok": problem is None, "checks": dict(findings)}
        typer.echo(json.dumps({**body, "problem": str(problem) if problem else None}))
    else:
        for what, finding in findings:
            typer.echo(f"ok  {what:<10}{finding}")
    if problem is not None:
        problem.exit_code = 2
        raise problem
    if not as_json:
        typer.echo(f"{record.address} is sound")


@triple_app.command("promote")
def triple_promote(
    triple: Reference,
    to: Annotated[str, typer.Option("--to", help="the alias, such as production")],
    store: Store = DEFAULT_STORE,
    expect: Expect = None,
    as_json: AsJson = False,
) -> None:
    """Point an alias at a triple.

    Endpoints that follow the alias switch without a restart. A race against another change is
    reported and tried again; with --expect it is refused.

    Example: lorid triple promote demo --to production --store lorid-demo/store
    """
    from lorid.artifacts.aliases import current_entry, promote
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import read_manifest, resolve_triple

    opened = open_store(store)
    record, manifest = opened_triple(store, triple)
    before = current_entry(opened, to)
    if before is not None and before.target != record.address:
        try:
            old = read_manifest(opened, resolve_triple(opened, before.target))
        except LoridError:
            old = manifest
        if (old.base.identity, old.base.family) != (manifest.base.identity, manifest.base.family):
            typer.echo(
                f"note: {before.target} has another base ({old.base.name}); endpoints that run "
                "will refuse this triple until they are deployed anew",
                err=True,
            )
    entry = promote(
        opened, to, record.address, expect=expect, announce=lambda line: typer.echo(line, err=True)
    )
    _print_entry(entry, as_json=as_json)


@triple_app.command("rollback")
def triple_rollback(
    alias: Alias, store: Store = DEFAULT_STORE, expect: Expect = None, as_json: AsJson = False
) -> None:
    """Point an alias at what stood before.

    Again, at what stood before that. Refused when somebody changes the alias meanwhile: two
    rollbacks must not go back two.

    Example: lorid triple rollback production --store lorid-demo/store
    """
    from lorid.artifacts.aliases import rollback
    from lorid.artifacts.store import open_store

    _print_entry(rollback(open_store(store), alias, expect=expect), as_json=as_json)


@triple_app.command("history")
def triple_history(alias: Alias, store: Store = DEFAULT_STORE, as_json: AsJson = False) -> None:
    """Every change of an alias, oldest first: when, by whom, to what.

    Example: lorid triple history production --store lorid-demo/store
    """
    from lorid.artifacts.aliases import history
    from lorid.artifacts.store import open_store

    entries = history(open_store(store), alias)
    if not entries:
        raise ArtifactIncomplete(f"{store} has no alias {alias!r}; `lorid triple promote` makes it")
    if as_json:
        typer.echo(json.dumps([entry.model_dump(mode="json") for entry in entries]))
        return
    for entry in entries:
        typer.echo(f"{entry.number:>4}  {entry.at}  {entry.action:<8}  {entry.target}  {entry.by}")


def opened_triple(store: str, reference: str) -> "tuple[Record, TripleManifest]":
    """The triple that a reference names, with its manifest."""
    from lorid.artifacts.store import open_store
    from lorid.artifacts.triples import read_manifest, resolve_triple

    opened = open_store(store)
    record = resolve_triple(opened, reference)
    return record, read_manifest(opened, record)


def _probed(manifest: "TripleManifest", model: "ModelConfig", folders: "dict[Role, Path]") -> str:
    """Load the triple into an engine of its own and ask each adapter once."""
    import asyncio

    from lorid.engines.base import idle_roles
    from lorid.engines.vllm import VllmEngine
    from lorid.errors import AdapterIdle

    async def probe() -> dict[str, str]:
        engine = VllmEngine(
            student=model, sampling=manifest.sampling, engine=manifest.engine, num_triples=1
        )
        try:
            await engine.load(manifest.name, adapters=folders, sampling=manifest.sampling)
            return dict(await engine.probe(manifest.name))
        finally:
            await engine.aclose()

    idle = idle_roles(asyncio.run(probe()))
    if idle:
        raise AdapterIdle(f"these adapters answer like the base: {', '.join(idle)}")
    return "each adapter answers unlike the base"


def _print_entry(entry: "AliasEntry", *, as_json: bool) -> None:
    typer.echo(json.dumps(entry.model_dump(mode="json")) if as_json else entry.told())


def _told(result: dict[str, Any]) -> str:
    return (
        f"{result['num_correct']} of {result['num_problems']} right ({result['accuracy']:.1%}), "
        f"{result['num_errors']} errors, {result['mean_rounds']:.2f} rounds, grader "
        f"{result['grader_version']}, {result['address']}"
    )


def _flat(section: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in section.items())
