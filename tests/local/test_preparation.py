"""The prepare stage's files: augmented rows matched with their sources, splits kept apart."""

import json
import os
import random
from pathlib import Path

import pytest

from lorid.config import parse_config
from lorid.distributed.inputs import data_inputs, question_inputs
from lorid.distributed.preparation import (
    load_questions,
    read_groups,
    read_split,
    write_splits,
)
from lorid.errors import ConfigError, DataError
from lorid.jsonl import read_jsonl, write_jsonl
from lorid.method.sources import join
from lorid.serving import EvaluationConfig

ROWS = Path(__file__).parents[1] / "data" / "metamath_rows.jsonl"
SHARED = Path(
    os.environ.get("LORID_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
GOLD = [
    {
        "question": "Ana has 12 shells. She finds 5 more. How many shells does she have?",
        "answer": "12 + 5 = <<12+5=17>>17\n#### 17",
    },
    {"question": "How many are 2 and 3?", "answer": "2 + 3 = 5\n#### 5"},
    {"problem": "What is half of  $\\frac{1}{2}$?", "solution": "It is $\\boxed{\\frac{1}{4}}$."},
]


def config_of(folder: Path, *, augmented: Path | None, test=GOLD[1:2], **data):
    write_jsonl(folder / "gold.jsonl", GOLD)
    write_jsonl(folder / "tested.jsonl", test)
    section = {
        "source": "jsonl",
        "train": str(folder / "gold.jsonl"),
        "test": str(folder / "tested.jsonl"),
        "augmented": augmented and str(augmented),
        "num_train": None,
        **data,
    }
    return parse_config(json.dumps({"data": section}), preset="demo")


@pytest.mark.parametrize("as_array", [False, True])
def test_rows_are_matched_written_aside_or_refused_and_counted(tmp_path, as_array):
    rows = ROWS
    if as_array:
        rows = tmp_path / "MetaMathQA.json"
        rows.write_text(json.dumps([row for _, row in read_jsonl(ROWS)]))
    details = write_splits(config_of(tmp_path, augmented=rows), tmp_path)
    assert {key: details[key] for key in ("num_train", "num_sources", "num_requests_saved")} == {
        "num_train": 4, "num_sources": 2, "num_requests_saved": 2,
    }  # fmt: skip
    assert details["unmatched_by_type"] == {"MATH_SV": 1}
    assert [row["type"] for _, row in read_jsonl(tmp_path / "unmatched.jsonl")] == ["MATH_SV"]
    reasons = [row["reason"] for _, row in read_jsonl(tmp_path / "rejected.jsonl")]
    assert reasons[0] == "repeats an earlier row"
    assert "The answer is:" in reasons[1]
    train = read_split(tmp_path, "train")
    groups = read_groups(tmp_path)
    # The teacher sees the gold rationale, not an augmentation's.
    assert [group.source.rationale for group in groups] == [
        "12 + 5 = 17", "It is $\\boxed{\\frac{1}{4}}$.",
    ]  # fmt: skip
    knowledge = {group.source_id: ("rule",) for group in groups}
    assert [item.problem for item in join(train, knowledge=knowledge)] == train


def test_what_was_made_from_a_test_question_is_not_trained_on(tmp_path):
    details = write_splits(config_of(tmp_path, augmented=ROWS, test=GOLD[:1]), tmp_path)
    assert details["num_train_dropped_as_test"] == 3
    assert [problem.style for problem in read_split(tmp_path, "train")] == ["math"]


def test_the_limit_is_one_of_rows_not_of_sources(tmp_path):
    details = write_splits(config_of(tmp_path, augmented=ROWS, num_train=4), tmp_path)
    assert (details["num_train"], details["num_sources"]) == (4, 2)


def test_rows_of_another_data_set_are_an_error_that_says_so(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text(ROWS.read_text().splitlines()[4])
    with pytest.raises(DataError, match="1 have no source question"):
        write_splits(config_of(tmp_path, augmented=rows), tmp_path)
    with pytest.raises(ConfigError, match="needs its source questions"):
        parse_config("data: {augmented: rows.jsonl}", preset="demo")


def test_the_rows_content_counts_and_not_their_place(tmp_path):
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    for file in (first, second):
        file.write_bytes(ROWS.read_bytes())
    versions = [data_inputs(config_of(tmp_path, augmented=file)) for file in (first, second)]
    assert versions[0]["data.augmented"] == versions[1]["data.augmented"]
    second.write_text(ROWS.read_text().splitlines()[0])
    assert data_inputs(config_of(tmp_path, augmented=second)) != versions[0]
    assert "data.augmented" not in data_inputs(config_of(tmp_path, augmented=None))


@pytest.mark.skipif(not SHARED.is_dir(), reason="GSM8K is not here")
def test_rows_made_from_gsm8k_find_their_sources(tmp_path):
    gold = [row for _, row in read_jsonl(SHARED / "gsm8k" / "train.jsonl")][:800]
    rng = random.Random(4)
    rows = []
    for row in gold:
        body, _, answer = row["answer"].partition("\n#### ")
        response = f"{body}\n#### {answer}\nThe answer is: {answer}"
        # White space differs between copies of the data set.
        spaced = "  ".join(row["question"].split(" "))
        kinds = {
            "GSM_AnsAug": row["question"],
            "GSM_Rephrased": f"Put otherwise: {row['question']}",
            "GSM_FOBAR": f"{row['question']} The answer is {answer}. What is unknown X?",
        }
        for kind, query in kinds.items():
            rows.append(
                {"type": kind, "query": query, "original_question": spaced, "response": response}
            )
    rng.shuffle(rows)
    write_jsonl(tmp_path / "rows.jsonl", rows)
    write_jsonl(tmp_path / "sources.in.jsonl", gold[:700])
    config = config_of(tmp_path, augmented=tmp_path / "rows.jsonl",
                       train=str(tmp_path / "sources.in.jsonl"))  # fmt: skip
    details = write_splits(config, tmp_path)
    assert (details["num_train"], details["num_sources"]) == (2100, 700)
    assert details["num_requests_saved"] == 1400
    assert details["unmatched_by_type"] == dict.fromkeys(sorted({r["type"] for r in rows}), 100)
    groups = read_groups(tmp_path)
    assert {group.num_problems for group in groups} == {3}
    assert {group.source.question for group in groups} == {row["question"] for row in gold[:700]}


def test_an_evaluation_has_questions_of_its_own_without_training_rows(tmp_path):
    write_jsonl(tmp_path / "own.jsonl", [*GOLD, {"question": "?"}])
    own = EvaluationConfig(questions=str(tmp_path / "own.jsonl"))
    loaded = load_questions(own)
    assert [problem.question for problem in loaded.problems[:2]] == [
        row["question"] for row in GOLD[:2]
    ]
    assert (len(loaded.problems), len(loaded.rejected)) == (3, 1)
    assert len(load_questions(own.model_copy(update={"num_questions": 2})).problems) == 2
    inputs = question_inputs(own)
    (tmp_path / "moved.jsonl").write_bytes((tmp_path / "own.jsonl").read_bytes())
    moved = own.model_copy(update={"questions": str(tmp_path / "moved.jsonl")})
    assert question_inputs(moved) == inputs
    assert inputs.keys() - question_inputs(EvaluationConfig()).keys() == {"evaluation.questions"}
    write_jsonl(tmp_path / "own.jsonl", [{"question": "?"}])
    with pytest.raises(DataError, match="row 1: field 'answer'"):
        load_questions(own)


@pytest.mark.parametrize("place", ["a b", "org/name:main:test:more", "../x", "missing.jsonl"])
def test_questions_that_are_nowhere_are_one_line(place):
    with pytest.raises((ConfigError, DataError)) as caught:
        load_questions(EvaluationConfig(questions=place))
    assert place in str(caught.value)
    assert "\n" not in str(caught.value)
