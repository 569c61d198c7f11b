"""Model cards: what somebody who finds an exported triple needs to know to use it without lorid."""

from pathlib import Path
from typing import Any

import yaml

from lorid.artifacts.adapters import engine_rank
from lorid.artifacts.triples import TripleManifest
from lorid.method.roles import Role, user_turn
from lorid.method.templates import TEMPLATES

EXAMPLE_QUESTION = "Tom has 3 apples and finds 4 more apples. How many apples are there now?"
EXAMPLE_KNOWLEDGE = "To find a total after more is added, add what is added to what was there."
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
    return f"""{_front_matter(manifest, license_id=license_id, tags=[])}
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


def adapter_card(manifest: TripleManifest, role: Role, *, license_id: str) -> str:
    """README.md of one exported adapter, with its prompt written out."""
    entry = manifest.adapters[role]
    knowledge = EXAMPLE_KNOWLEDGE if role is Role.DEEP_REASONER else None
    turn = user_turn(role, question=EXAMPLE_QUESTION, knowledge=knowledge)
    return f"""{_front_matter(manifest, license_id=license_id, tags=[str(role)])}
# {manifest.name}: {role}

LoRA adapter of rank {entry.rank} (alpha {entry.alpha:g}, on {", ".join(entry.target_modules)})
for the LoRID role *{role}*: {LEARNS[role]}.

{_facts(manifest)}
## Prompt

The user's turn is exactly the following text, trailing spaces included:

```json
{_json(turn)}
```

{_rendering(manifest.base.family)}

## Use

```python
from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({_python(manifest.base.name)}{_revision(manifest)})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
```

```bash
vllm serve {manifest.base.name} --enable-lora --max-lora-rank {engine_rank([entry.rank])} \\
    --lora-modules {role}=path/to/this/folder
```

{_sampling(manifest)}"""


def _front_matter(manifest: TripleManifest, *, license_id: str, tags: list[str]) -> str:
    matter: dict[str, Any] = {"license": license_id, "library_name": "peft"}
    if not Path(manifest.base.name).is_absolute():
        matter["base_model"] = manifest.base.name
    matter |= {
        "pipeline_tag": "text-generation",
        "tags": ["lora", "lorid", "math", *tags],
    }
    return f"---\n{yaml.safe_dump(matter, sort_keys=False)}---"


def facts_of(manifest: TripleManifest) -> list[tuple[str, str]]:
    """What there is to know of a triple, as name and value; code is between backticks."""
    base = manifest.base
    rows = [
        ("base", f"`{base.name}`, identity `{base.identity}`"),
        ("prompt family", f"`{base.family}`"),
        ("grader", f"version {manifest.grader_version}"),
    ]
    for what, source in (("problems", manifest.data), ("knowledge", manifest.knowledge)):
        if source is not None:
            rows.append((what, f"`{source.address}`, fingerprint `{source.fingerprint[:16]}`"))
    if (result := manifest.evaluation) is not None:
        told = (
            f"{result.num_correct} of {result.num_problems} test problems right "
            f"({result.accuracy:.1%}) after {result.mean_rounds:.2f} rounds on average"
        )
        rows.append(("evaluation", f"{told}, by grader version {result.grader_version}"))
    else:
        rows.append(("evaluation", "none"))
    return rows


def _facts(manifest: TripleManifest) -> str:
    body = "\n".join(f"| {name} | {value} |" for name, value in facts_of(manifest))
    return f"| | |\n|---|---|\n{body}\n"


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


def _revision(manifest: TripleManifest) -> str:
    revision = manifest.base.revision
    return f", revision={_python(revision)}" if revision else ""


def _json(text: str) -> str:
    import json

    return json.dumps(text)


def _python(text: str) -> str:
    return repr(text)
