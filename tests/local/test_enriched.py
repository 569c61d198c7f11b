"""The knowledge artifact's files: Parquet that reads back equal, a card, rejects."""

import json
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lorid.artifacts.enriched import ROWS_PER_GROUP, read_enriched, write_enriched
from lorid.distributed.knowledge_files import write_knowledge
from lorid.errors import DataError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.problems import EnrichedProblem, Problem, source_key
from lorid.method.sources import group_by_source
from lorid.presets import demo


def numbered(number: int, *, source: str = "", rules=("Add the parts.", "Halve it.")):
    problem = Problem(
        problem_id=f"p{number}",
        question=f"question {number}",
        rationale="r",
        answer="1",
        source_id=source_key(source) if source else "",
    )
    return EnrichedProblem(problem=problem, knowledge=tuple(rules))


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=40)
@given(st.lists(st.tuples(texts, st.lists(texts, max_size=3)), max_size=4))
def test_problems_survive_parquet(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("parquet")
    written = [
        EnrichedProblem(
            problem=Problem(
                problem_id=str(n), question=text, rationale=text, answer=text, source_id=text
            ),
            knowledge=tuple(rules),
        )
        for n, (text, rules) in enumerate(contents)
    ]
    assert write_enriched(folder, iter(written)) == len(written)
    assert list(read_enriched(folder)) == written


@pytest.mark.parametrize("count", [0, 1, 2500, 5000, 5001])
def test_rows_go_to_files_and_row_groups_of_bounded_size(tmp_path, count):
    assert write_enriched(tmp_path, map(numbered, range(count)), rows_per_file=2500) == count
    files = sorted(tmp_path.glob("data/*.parquet"))
    assert len(files) == max(1, -(-count // 2500))
    for file in files:
        metadata = pq.read_metadata(file)
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert max(sizes, default=0) <= ROWS_PER_GROUP
    assert list(read_enriched(tmp_path)) == [numbered(n) for n in range(count)]


def test_files_that_are_missing_or_torn_are_named(tmp_path):
    with pytest.raises(DataError, match="run the knowledge stage again"):
        list(read_enriched(tmp_path))
    write_enriched(tmp_path, [numbered(1)])
    (file,) = tmp_path.glob("data/*.parquet")
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match=r"train-00000\.parquet"):
        list(read_enriched(tmp_path))


def written_artifact(folder):
    problems = [numbered(n, source=f"source {n // 3}").problem for n in range(9)]
    groups = group_by_source(problems)
    first, second, third = groups
    reason = "not-json: no JSON object in the answer"
    reject = {**third.source.to_row(), "reason": reason, "num_problems": third.num_problems}
    result = SimpleNamespace(
        kept={second.source_id: ["rule b", "rule c"], first.source_id: ["rule a"]},
        rejects=[reject],
        details=lambda: {
            "num_problems": 3, "num_kept": 2, "num_rejected": 1, "num_generated_tokens": 70,
            "rejected_because": {"not-json": 1}, "caught": {"not-json": 3, "final-answer": 2},
            "spent": 0.5, "currency": "USD",
        },
    )  # fmt: skip
    data = folder.parent / "data-artifact"
    data.mkdir()
    write_jsonl(data / "train.jsonl", (problem.to_row() for problem in problems))
    details = write_knowledge(folder, config=demo(), data=data, groups=groups, result=result)
    return problems, details


def test_knowledge_is_joined_onto_every_problem_of_its_source(tmp_path):
    problems, details = written_artifact(tmp_path / "set")
    read = list(read_enriched(tmp_path / "set"))
    assert [item.problem for item in read] == problems[:6]
    assert [item.knowledge for item in read] == [("rule a",)] * 3 + [("rule b", "rule c")] * 3
    assert (details["num_rows"], details["num_requests_saved"]) == (6, 6)
    ((_, reject),) = read_jsonl(tmp_path / "set" / "rejects.jsonl")
    assert (reject["problem_id"], reject["num_problems"]) == ("p6", 3)


def test_datasets_loads_the_folder_by_its_card(tmp_path):
    import datasets

    problems, _ = written_artifact(tmp_path / "set")
    card = (tmp_path / "set" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    for line in ("| not-json | 3 |", "| rows | 6 |", "| cost | 0.5000 USD", "| model | teacher |"):
        assert line in card
    assert "/" not in card.split("| model | ")[1].split(" |")[0]
    loaded = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path))
    assert loaded["problem_id"] == [problem.problem_id for problem in problems[:6]]
    assert json.dumps(loaded[5]["knowledge"]) == '["rule b", "rule c"]'
