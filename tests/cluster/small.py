"""The demo's run, smaller: what the cluster tests share."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
from free_ports import free_port

from lorid.artifacts.records import Record, publish
from lorid.artifacts.store import ArtifactStore
from lorid.artifacts.triples import MANIFEST_FILE, dump_manifest, make_manifest, role_folders
from lorid.method.roles import Role
from lorid.presets import demo

SMALL = {
    "data": {"num_train": 48, "num_test": 6},
    "training": {"num_epochs": 2, "num_epochs_by_role": {}, "checkpoint_every_steps": 3},
    # The demo's teacher needs no guide; here vLLM's own is at work.
    "teacher": {"batch_rows": 24, "guided": True},
    "feedback": {"max_rounds": 3},
    "evaluation": {"items_per_request": 3},
}


QV = ("q_proj", "v_proj")


def adapter_folder(
    folder: Path,
    *,
    seed: int,
    rank: int = 8,
    is_idle: bool = False,
    base: Path | None = None,
    targets: Sequence[str] = QV,
) -> Path:
    """A random adapter, in PEFT's own files; an idle one changes nothing.

    `base` None is the demo's.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    path = base or demo().student.path
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    settings = LoraConfig(
        r=rank, target_modules=list(targets), init_lora_weights=is_idle,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    get_peft_model(model, settings).save_pretrained(str(folder), safe_serialization=True)
    return folder


def random_triple(
    store: ArtifactStore,
    folder: Path,
    *,
    seed: int,
    rank: int = 8,
    idle: Role | None = None,
    base: Path | None = None,
    targets: Sequence[str] = QV,
) -> Record:
    """A triple of random adapters of a base, in a store; `idle` names one that is not.

    `base` None is the demo's.
    """
    config = demo().endpoint()
    if base is not None:
        student = config.student.model_copy(update={"path": str(base)})
        config = config.model_copy(update={"student": student})
    folders = role_folders(folder)
    for number, role in enumerate(Role):
        adapter_folder(
            folders[role], seed=10 * seed + number, rank=rank, is_idle=role is idle,
            base=base, targets=targets,
        )  # fmt: skip
    manifest = make_manifest(config, folders=folders, addresses={})
    (folder / MANIFEST_FILE).write_bytes(dump_manifest(manifest))
    return publish(store, folder, kind="triple", name="demo", inputs={"seed": seed, "rank": rank})


def num_processes(title: str) -> int:
    """Processes of this test whose title holds that."""
    found = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += title in " ".join(process.cmdline())
    return found


def processes_of(part: str) -> list[psutil.Process]:
    """The processes of Serve's actors of that name, of the Ray that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if part in " ".join(process.cmdline()[:1]):
                found.append(process)
    return found


def process_of(part: str) -> psutil.Process:
    """One of them."""
    for process in processes_of(part):
        return process
    raise LookupError(f"no process of {part}")


# Some of the demo's sequences for the deep reasoner are longer, none of the others'.
CUT_OFF = 185


def said_of_too_long(log: str, *, adapter: Record) -> bool:
    """Whether a job's log tells, as training begins and as it ends, what its record counts."""
    role = adapter.name.rpartition("-")[2]
    dropped, cut = (adapter.details[f"num_{one}"] for one in ("dropped_too_long", "truncated"))
    begins = (
        f"train: {role}: of the sequences over the cut-off of {CUT_OFF} tokens, {dropped} dropped, "
        f"{cut} cut in the prompt's middle"
    )
    told = f"{dropped} sequences over the cut-off dropped" if dropped else f"{cut} cut"
    ends = f"{role}: {adapter.address} ({told})"
    return begins in log and ends in log


def small_config_text(*, store: str | Path, name: str = "small") -> str:
    """A config file's text: the demo preset at a size for tests."""
    import yaml

    sections = {
        **SMALL,
        "preset": "demo",
        "name": name,
        "store": str(store),
        "serving": {"port": free_port()},
    }
    return yaml.safe_dump(sections)
