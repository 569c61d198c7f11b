"""Model cards: what somebody who finds adapters needs to know to use them without lorid.

triple_card(manifest, license_id="mit")       # of an exported triple
adapter_card(manifest, role, license_id="mit")        # of one adapter in it
trained_adapter_card(record)                  # of an adapter as training leaves it
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import yaml

from lorid.artifacts.adapters import engine_rank
from lorid.artifacts.training_record import TRAINING_FILE, TrainingRecord
from lorid.artifacts.triples import BaseIdentity, Source, TripleManifest
from lorid.method.roles import Role, user_turn
from lorid.method.templates import TEMPLATES

EXAMPLE_QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
EXAMPLE_KNOWLEDGE = "To find a total after more is added, add what is added to what was there."
SHOWN_SETTINGS = ("learning_rate", "num_epochs", "sequences_per_step", "dropout", "mode")
LEARNS = {
    Role.INTUITIVE_REASONER: "question -> solution",
    Role.KNOWLEDGE_GENERATOR: "question -> the general rules that a solution rests on",
    Role.DEEP_REASONER: "question and knowledge -> solution",
}


def triple_card(manifest: TripleManifest, *, license_id: str) -> str:
    """README.md of an exported triple: its three parts and how they work together."""
    parts = "\n".join(
        f"| [`{role}/`]({role}) | {LEARNS[role]} | {entry.rank} | {entry.alpha:g} | "
        f"`{entry.weights_sha256[:12]}` |"
        for role, entry in manifest.adapters.items()
    )
    feedback = manifest.feedback
    return f"""{_front_matter(manifest.base, license_id=license_id, tags=[])}
# {manifest.name}: three LoRA adapters of one student

Trained by LoRID ([arXiv 2508.13037](https://arxiv.org/abs/2508.13037)) with lorid. The three belong
together; each is an ordinary PEFT adapter in its own folder.

| folder | learns | rank | alpha | SHA-256 of the weights |
|---|---|---|---|---|
{parts}

To answer a question by mutual feedback, draw rounds until the two sides agree, at most
{feedback.max_rounds} (rule `{feedback.rule}`): an attempt of the intuitive reasoner; knowledge, and
an attempt of the deep reasoner that reads it. The answer is one that both sides gave in any round.

{_facts(manifest)}
{_sampling(manifest)}
`triple.json` says all of this for programs; `lorid triple import` takes the folder back in.
"""


def adapter_card(
    manifest: TripleManifest,
    role: Role,
    *,
    license_id: str,
    training: TrainingRecord | None = None,
) -> str:
    """README.md of one exported adapter, with its prompt written out."""
    entry = manifest.adapters[role]
    about = (
        f"LoRA adapter of rank {entry.rank} (alpha {entry.alpha:g}, on "
        f"{', '.join(entry.target_modules)})\nfor the LoRID role *{role}*: {LEARNS[role]}."
    )
    return f"""{_front_matter(manifest.base, license_id=license_id, tags=[str(role)])}
# {manifest.name}: {role}

{about}

{_facts(manifest)}
{_prompt(role, manifest.base)}
{_use(role, manifest.base, rank=entry.rank)}
{_training(training)}{_sampling(manifest)}"""


def trained_adapter_card(record: TrainingRecord) -> str:
    """README.md of an adapter as training leaves it; nothing is known yet of how well it does."""
    role, settings = record.role, record.settings
    targets = cast("list[str]", settings["target_modules"])
    rank, alpha = cast("int", settings["rank"]), cast("float", settings["alpha"])
    rows = [*_base_facts(record.base), *_source_facts(record.data, record.knowledge)]
    return f"""{_front_matter(record.base, license_id=None, tags=[str(role)])}
# {record.name}: {role}

LoRA adapter of rank {rank} (alpha {alpha:g}, on {", ".join(targets)})
for the LoRID role *{role}*: {LEARNS[role]}. Trained by LoRID
([arXiv 2508.13037](https://arxiv.org/abs/2508.13037)) with lorid.

{_table(rows)}
{_prompt(role, record.base)}
{_use(role, record.base, rank=rank)}
{_training(record)}"""


def _front_matter(base: BaseIdentity, *, license_id: str | None, tags: list[str]) -> str:
    matter: dict[str, Any] = {"license": license_id} if license_id else {}
    matter["library_name"] = "peft"
    if not Path(base.name).is_absolute():
        matter["base_model"] = base.name
    matter |= {
        "pipeline_tag": "text-generation",
        "tags": ["lora", "lorid", "math", *tags],
    }
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"


def facts_of(manifest: TripleManifest) -> list[tuple[str, str]]:
    """What there is to know of a triple, as name and value; code is between backticks."""
    rows = [
        *_base_facts(manifest.base),
        ("grader", f"version {manifest.grader_version}"),
        *_source_facts(manifest.data, manifest.knowledge),
    ]
    if (result := manifest.evaluation) is not None:
        told = (
            f"{result.num_correct} of {result.num_problems} test problems right "
            f"({result.accuracy:.1%}) after {result.mean_rounds:.2f} rounds on average"
        )
        rows.append(("evaluation", f"{told}, by grader version {result.grader_version}"))
    else:
        rows.append(("evaluation", "none"))
    return rows


def _base_facts(base: BaseIdentity) -> list[tuple[str, str]]:
    return [
        ("base", f"`{base.name}`, identity `{base.identity}`"),
        ("prompt family", f"`{base.family}`"),
    ]


def _source_facts(data: Source | None, knowledge: Source | None) -> list[tuple[str, str]]:
    return [
        (what, f"`{source.address}`, fingerprint `{source.fingerprint[:16]}`")
        for what, source in (("problems", data), ("knowledge", knowledge))
        if source is not None
    ]


def _facts(manifest: TripleManifest) -> str:
    return _table(facts_of(manifest))


def _table(rows: Sequence[tuple[str, str]]) -> str:
    body = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n|---|---|\n{body}\n"


def _training(record: TrainingRecord | None) -> str:
    """How the adapter was trained; nothing where that is not known."""
    if record is None:
        return ""
    result, settings = record.result, record.settings
    losses = [loss for loss in (result.first_loss, result.last_loss) if loss is not None]
    rows = [
        ("steps", f"{result.step} of {result.num_steps}, over {result.num_examples} examples"),
        ("training loss", ", then ".join(f"{loss:.4f}" for loss in losses) or "unknown"),
        ("over the cut-off", f"{result.num_dropped_too_long} dropped, {result.num_truncated} cut"),
        *((name.replace("_", " "), f"{settings[name]}") for name in SHOWN_SETTINGS),
        ("seed", f"{record.seed}"),
        ("versions", ", ".join(f"{name} {one}" for name, one in record.packages.items())),
    ]
    if result.num_untargeted:
        rows.insert(3, ("without a target", f"{result.num_untargeted} left out"))
    if result.best_validation_loss is not None:
        best = f"{result.best_validation_loss:.4f} at step {result.best_step}"
        rows.insert(2, ("best validation loss", best))
    return f"## Training\n\n{_table(rows)}\n`{TRAINING_FILE}` says all of this for programs.\n\n"


def _prompt(role: Role, base: BaseIdentity) -> str:
    knowledge = EXAMPLE_KNOWLEDGE if role is Role.DEEP_REASONER else None
    turn = user_turn(role, question=EXAMPLE_QUESTION, knowledge=knowledge)
    return f"""## Prompt

The user's turn is exactly the following text, trailing spaces included:

```json
{_json(turn)}
```

{_rendering(base.family)}
"""


def _use(role: Role, base: BaseIdentity, *, rank: int) -> str:
    revision = f", revision={_python(base.revision)}" if base.revision else ""
    return f"""## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({_python(base.name)}{revision})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

```bash
vllm serve {base.name} --enable-lora --max-lora-rank {engine_rank([rank])} \\
    --lora-modules {role}=path/to/this/folder
```
"""


def _sampling(manifest: TripleManifest) -> str:
    sampling = manifest.sampling
    return (
        f"Sampled at temperature {sampling.temperature:g}, top_p {sampling.top_p:g}, "
        f"top_k {sampling.top_k}, at most {sampling.max_new_tokens} new tokens.\n"
    )


def _rendering(family: str) -> str:
    if family not in TEMPLATES:
        return (
            "It goes through the tokenizer's own chat template as the only message, of the user, "
            "with `add_generation_prompt=True`."
        )
    template = TEMPLATES[family]
    pieces = [*template.before, f"{template.open_text}TURN{template.close_text}", *template.after]
    listed = "\n".join(_json(piece) for piece in pieces)
    return (
        "Around it, in this order (`BOS` is the tokenizer's id, `<|...|>` are single special "
        "tokens, the rest is text, encoded without special tokens; TURN is the user's turn):\n\n"
        f"```json\n{listed}\n```"
    )


def _json(text: str) -> str:
    import json

    return json.dumps(text)


def _python(text: str) -> str:
    return repr(text)
