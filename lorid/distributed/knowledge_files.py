"""The files of the knowledge artifact: a Parquet data set, its card, and what was set aside.

    README.md   data/train-00000.parquet ...   rejects.jsonl

The knowledge of each source question is joined onto every problem made from it, in the order of the
training split, row group by row group: a data set of hundreds of thousands of rows is never held.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorid.artifacts.enriched import write_enriched
from lorid.artifacts.knowledge_card import knowledge_card
from lorid.config import RunConfig
from lorid.distributed.inputs import prompt_hash
from lorid.distributed.preparation import iter_split
from lorid.jsonl import write_jsonl
from lorid.method.sources import SourceGroups, join

if TYPE_CHECKING:
    from lorid.distributed.knowledge import KnowledgeResult

REJECTS_FILE = "rejects.jsonl"


def write_knowledge(
    folder: Path,
    *,
    config: RunConfig,
    data: Path,
    groups: SourceGroups,
    result: "KnowledgeResult",
) -> Mapping[str, Any]:
    """Write the artifact; returns the details of its record.

    `result` is about the groups' sources; what shares them is in the folder `data`.
    """
    num_rows = write_enriched(folder, join(iter_split(data, "train"), knowledge=result.kept))
    write_jsonl(folder / REJECTS_FILE, result.rejects)
    details = {
        **result.details(),
        "num_rows": num_rows,
        "num_requests_saved": groups.num_problems - len(groups),
    }
    card = knowledge_card(config, details=details, prompt_hash=prompt_hash(config))
    (folder / "README.md").write_text(card, encoding="utf-8")
    return details
