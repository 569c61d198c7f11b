"""The card of a knowledge data set: README.md with what a reader must know before using it.

Its front matter tells `datasets` and the hub which files are the data, so that the rejects beside
them are not taken for a split.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from lorid.artifacts.enriched import PATTERN
from lorid.config import RunConfig

UNKNOWN_LICENSE = "other"


def knowledge_card(
    config: RunConfig,
    *,
    details: Mapping[str, Any],
    prompt_hash: str,
    license_id: str | None = None,
) -> str:
    """README.md of the data set; `details` are those of the artifact's record."""
    return f"""{_front_matter(details, license_id=license_id)}
# {config.name}: problems with the general rules that their solutions rest on

Made by lorid for LoRID ([arXiv 2508.13037](https://arxiv.org/abs/2508.13037)). A teacher read each
source question with its gold rationale once and wrote general rules; every problem made from that
question has them in `knowledge`.

```python
from datasets import load_dataset

rows = load_dataset("path/to/this/folder", split="train")
```

| column | holds |
|---|---|
| `problem_id` | hash of question and rationale, or the source's own id |
| `question`, `rationale`, `answer` | the problem as it was given |
| `style` | how a target ends: `gsm8k` or `math` |
| `family` | kind of problem, where the source names one |
| `source_id` | hash of the question that it was made from; empty when it is its own source |
| `knowledge` | the rules, in order |

## Counts

{_table("", _counts(details))}
## Quality gate

What the gate caught in the teacher's answers, each rule of it counted, also where a later answer to
the same question was taken:

{_table("reason", details.get("caught") or {"none": 0})}
Set aside for good, in `rejects.jsonl`:

{_table("reason", details.get("rejected_because") or {"none": 0})}
## Teacher

{_table("", _teacher(config, details, prompt_hash=prompt_hash))}
## License

{_license_note(config, license_id)}
"""


def _front_matter(details: Mapping[str, Any], *, license_id: str | None) -> str:
    facts = {
        "license": license_id or UNKNOWN_LICENSE,
        "task_categories": ["text-generation"],
        "tags": ["lorid", "synthetic", "math"],
        "configs": [
            {"config_name": "default", "data_files": [{"split": "train", "path": PATTERN}]}
        ],
    }
    return f"---\n{yaml.safe_dump(facts, sort_keys=False)}---\n"


def _counts(details: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rows": details["num_rows"],
        "source questions asked": details["num_problems"],
        "with knowledge": details["num_kept"],
        "set aside": details["num_rejected"],
        "requests saved by asking once per source": details["num_requests_saved"],
    }


def _teacher(config: RunConfig, details: Mapping[str, Any], *, prompt_hash: str) -> dict[str, Any]:
    teacher = config.teacher
    sampling = teacher.sampling
    facts = {
        "model": teacher_name(config),
        "kind": teacher.kind,
        "sampling": f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
        f"at most {sampling.max_new_tokens} tokens",
        "SHA-256 of the prompt's template": f"`{prompt_hash}`",
        "tokens written": details.get("num_generated_tokens", 0),
    }
    if details.get("currency"):
        facts["cost"] = f"{details['spent']:.4f} {details['currency']} by the config's prices"
    return facts


def teacher_name(config: RunConfig) -> str:
    """Hub id or API name of the teacher; of a local model its folder's name alone."""
    teacher = config.teacher
    if teacher.kind != "vllm" and teacher.api is not None:
        return teacher.api.model
    path = teacher.vllm_model.path
    return Path(path).name if Path(path).is_absolute() else path


def _license_note(config: RunConfig, license_id: str | None) -> str:
    source = "lorid's own generator" if config.data.source == "demo" else config.data.hub_id
    if config.data.source == "jsonl":
        source = "files given by the run's owner"
    augmented = (
        f", augmented by {Path(config.data.augmented).name}" if config.data.augmented else ""
    )
    first = f"Chosen by whoever made this: {license_id}." if license_id else "None was chosen."
    return (
        f"{first} Questions and rationales come from {source}{augmented}, under their own terms; "
        f"the rules were written by {teacher_name(config)}, whose provider may restrict how its "
        "output is used. Check both before you publish or train on this."
    )


def _table(head: str, rows: Mapping[str, Any]) -> str:
    lines = [
        f"| {head} | |",
        "|---|---|",
        *(f"| {name} | {value} |" for name, value in rows.items()),
    ]
    return "\n".join(lines) + "\n"
