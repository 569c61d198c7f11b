"""`lorid replay`: every option, what it prints, and what it says about bad files."""

import json

import pytest

from lorid.method.stopping import RULES

KEYS = {
    "rule", "max_rounds", "num_problems", "accuracy", "coverage", "accuracy_when_agreed",
    "mean_rounds", "mean_generations", "interval",
}  # fmt: skip


def row(name, intuitive, deep, *, gold="7", question=""):
    return {
        "problem_id": name,
        "question": question,
        "gold": gold,
        "intuitive": [f"--> {answer} END" for answer in intuitive],
        "knowledge": ["k"] * len(deep),
        "deep": [f"--> {answer} END" for answer in deep],
    }


ROWS = [row("a", [1, 7], [7, 2]), row("b", [1], [1])]


@pytest.fixture
def write(tmp_path):
    """Writes rows, or lines as they are, to a file; returns its path."""

    def written(rows, name="attempts.jsonl"):
        lines = (one if isinstance(one, str) else json.dumps(one) for one in rows)
        (tmp_path / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(tmp_path / name)

    return written


@pytest.fixture
def printed(lorid):
    """The JSON that a command prints."""

    def run(*arguments):
        code, out, err = lorid("replay", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return run


def test_the_summary_and_each_problem(lorid, printed, write, tmp_path):
    each = tmp_path / "each.jsonl"
    file = write(ROWS)
    summary = printed(file, "--per-problem", str(each))
    assert summary.keys() >= KEYS
    assert (summary["rule"], summary["max_rounds"], summary["num_problems"]) == ("paper", 20, 2)
    assert (summary["accuracy"], summary["coverage"]) == (0.5, 1.0)
    assert (summary["mean_rounds"], summary["mean_generations"]) == (1.5, 4.5)
    low, high = summary["interval"]
    assert 0 <= low < 0.5 < high <= 1
    first, second = (json.loads(line) for line in each.read_text().splitlines())
    assert first == {
        "problem_id": "a",
        "answer": "7",
        "outcome": "agreed",
        "num_rounds": 2,
        "correct": True,
    }
    assert second["correct"] is False
    assert lorid("replay", file, "--json") == lorid("replay", file, "--json")


def test_rule_and_bound_are_chosen(printed, write):
    file = write(ROWS)
    assert printed(file, "--rule", "same-round")["coverage"] == 0.5
    assert printed(file, "--max-rounds", "1")["mean_rounds"] == 1.0
    assert printed(file, "--max-rounds", "1", "--abstain")["accuracy"] == 0.0
    sure = printed(file, "--rule", "bayes")
    assert sure["coverage"] == 0.0
    assert printed(file, "--rule", "bayes", "--tau", "0.8")["coverage"] == 0.5
    for rule in RULES:
        assert printed(file, "--rule", rule)["rule"] == rule


def test_figures_at_every_bound_and_k_and_the_calibration(printed, write):
    summary = printed(write(ROWS))
    bounds = [(one["max_rounds"], one["accuracy"]) for one in summary["by_max_rounds"]]
    # Without agreement after one round the deep reasoner's 7 is taken.
    assert bounds == [(1, 0.5), (2, 0.5)]
    assert [one["k"] for one in summary["pass_at_k"]] == [1, 2, 3, 4]
    assert summary["pass_at_k"][0]["value"] == (2 / 4 + 0) / 2
    assert [one["value"] for one in summary["majority_at_k"]] == [0.0, 0.0, 0.5, 0.5]
    assert summary["calibration"]["num_answers"] == 2
    assert summary["calibration"]["brier"] == pytest.approx((0.5**2 + 1.0**2) / 2)


def test_the_terminal_shows_the_same_within_80_columns(lorid, write):
    code, out, _ = lorid("replay", write(ROWS), "--rule", "paper-oracle")
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    for part in ("accuracy", "0.5000", "majority@k", "pass@k", "confidence", "brier", "label"):
        assert part in out
    code, out, _ = lorid("replay", write(ROWS), "--compare", ",".join(RULES))
    assert code == 0
    assert all(len(line) <= 80 for line in out.splitlines())
    assert all(rule in out for rule in RULES)
    assert "looks at the label" in out
    assert "…" not in out


def test_rules_are_compared_at_the_budget_of_the_first_or_a_given_one(printed, write):
    rows = [row(str(n), [1, 7, 7, 7], [2, 7, 7, 7]) for n in range(4)]
    compared = printed(write(rows), "--compare", "paper, majority")
    assert compared["budget"] == 6.0
    assert [(one["rule"], one["mean_generations"]) for one in compared["rules"]] == [
        ("paper", 6.0),
        ("majority", 6.0),
    ]
    assert all(one.keys() >= KEYS for one in compared["rules"])
    given = printed(write(rows), "--compare", "majority", "--budget", "9")["rules"][0]
    assert (given["max_rounds"], given["mean_generations"]) == (3, 9.0)
    poor = printed(write(rows), "--compare", "paper", "--budget", "1")["rules"][0]
    assert (poor["within_budget"], poor["max_rounds"]) == (False, 1)


def test_intuitive_attempts_come_from_another_file(lorid, printed, write):
    ours = write([*ROWS, row("c", [1], [7]), row("d", [1], [2], question="D?")])
    theirs = write(
        [row("a", [2], []), row("b", [7], []), row("x", [2], [], question="D?"), row("y", [7], [])],
        "other.jsonl",
    )
    summary = printed(ours, "--intuitive-from", theirs)
    assert summary["num_problems"] == 3
    assert (summary["num_unmatched"], summary["without_intuitive"]) == (2, ["c"])
    assert summary["without_deep"] == ["y"]
    # a: 2 meets the deep 2 of round two; d: 2 meets 2; b: 7 and 1 never meet.
    assert summary["coverage"] == pytest.approx(2 / 3)
    _, _, err = lorid("replay", ours, "--intuitive-from", theirs)
    assert "1 problems" in err
    assert "(c)" in err
    assert "(y)" in err


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([ROWS[0], '{"x": 1}'], "line 2"),
        ([ROWS[0], "{"], "line 2"),
        ([ROWS[0], "", ROWS[1], ROWS[0]], "line 4: problem_id 'a' is on line 1"),
        ([], "no attempts"),
    ],
)
def test_a_bad_file_is_one_line_with_its_cause(lorid, write, lines, named):
    for arguments in ([], ["--compare", "paper,bayes"]):
        code, out, err = lorid("replay", write(lines), *arguments)
        assert (code, out) == (2, "")
        assert named in err
        assert len(err.splitlines()) == 1
    code, _, err = lorid("replay", write(ROWS, "good.jsonl"), "--intuitive-from", write(lines))
    assert code == 2
    assert named in err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--rule", "best"], "best"),
        (["--compare", "paper,best"], "best"),
        (["--compare", ""], "unknown rule"),
        (["--max-rounds", "0"], "max-rounds"),
        (["--tau", "0.4"], "tau"),
        (["--tau", "nan"], "tau"),
        (["--budget", "3"], "--compare"),
        (["--rule", "paper", "--compare", "paper"], "exclude"),
        (["--compare", "paper", "--per-problem", "{tmp}/each"], "--per-problem"),
        (["--per-problem", "{tmp}/no/such/folder"], "no/such/folder"),
        (["--intuitive-from", "{tmp}/missing"], "missing"),
        (["--intuitive-from", "{tmp}/stranger.jsonl"], "no problem is in both"),
    ],
)
def test_options_that_do_not_fit_are_exit_2(lorid, write, tmp_path, arguments, named):
    write([row("z", [1], [1])], "stranger.jsonl")
    filled = [argument.format(tmp=tmp_path) for argument in arguments]
    code, _, err = lorid("replay", write(ROWS), *filled)
    assert code == 2
    assert named in err
    assert "Traceback" not in err


def test_texts_may_hold_any_character(printed, write):
    text = "so\u2028it\x0bis\x85\u0000\n--> 7 END"
    odd = {**ROWS[0], "problem_id": "\U0001f600", "intuitive": [text], "deep": [text]}
    plain = json.dumps({**ROWS[0], "intuitive": [text]}, ensure_ascii=False)
    summary = printed(write([odd, plain]))
    assert (summary["num_problems"], summary["accuracy"]) == (2, 1.0)
    compared = printed(write([odd, plain]), "--compare", "paper,majority", "--budget", "7")
    assert len(compared["rules"]) == 2


def test_two_files_are_compared_on_the_questions_of_both(lorid, write):
    ours = write(
        [row(str(n), [7], [7 if n else 1], question=f"Q{n}?") for n in range(6)]
        + [row("own", [7], [7], question="only here")]
    )
    theirs = write(
        [row(f"other {n}", [1 if n > 1 else 7], [1 if n > 1 else 7], question=f"Q{n}?")
         for n in range(6)], "other.jsonl"
    )  # fmt: skip
    code, out, _ = lorid("replay", ours, "--against", theirs, "--max-rounds", "1", "--json")
    paired = json.loads(out)
    assert (code, paired["num_problems"], paired["num_only_a"]) == (0, 6, 4)
    assert (paired["num_only_b"], paired["p_value"]) == (1, 0.375)
    code, out, _ = lorid("replay", ours, "--against", theirs)
    assert code == 0
    assert "McNemar" in out
    stranger = write([row("z", [1], [1], question="?")], "stranger.jsonl")
    code, _, err = lorid("replay", ours, "--against", stranger)
    assert (code, "no labelled question is in both" in err) == (2, True)
    assert lorid("replay", ours, "--against", theirs, "--labels")[0] == 2


def test_labels_that_every_rule_contradicts_are_listed(lorid, write):
    file = write([*ROWS, row("c", [3], [3], question="Three?")])
    code, out, _ = lorid("replay", file, "--labels", "--json")
    suspects = json.loads(out)["suspects"]
    assert (code, [one["problem_id"] for one in suspects]) == (0, ["b", "c"])
    assert suspects[1] | {"label": "7", "answer": "3", "question": "Three?"} == suspects[1]
    code, out, _ = lorid("replay", file, "--labels")
    assert out.startswith("2 of 3 labels are doubtful")


def test_contamination_reads_the_rows_of_any_data_set(lorid, tmp_path):
    asked = "A baker has twelve trays with nine rolls on each of them and sells fifty of all."
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": asked, "answer": "#### 58"}))
    rows = [{"query": f"Rephrased: {asked}", "response": "x"}, {"query": "Other?", "response": ""}]
    (tmp_path / "train.json").write_text(json.dumps(rows))
    files = [str(tmp_path / "test.jsonl"), str(tmp_path / "train.json")]
    code, out, _ = lorid("contamination", *files, "--json", "-o", str(tmp_path / "out"))
    told = json.loads(out)
    assert (code, told["questions_13_words"], told["num_rows"]) == (0, 1, 2)
    assert told["questions"][0]["row_id"] == "train.json:1"
    assert json.loads((tmp_path / "out").read_text()) == told["questions"][0]
    assert "share 13 words" in lorid("contamination", *files)[1]
    (tmp_path / "bad.jsonl").write_text('{"text": 1}')
    code, _, err = lorid("contamination", files[0], str(tmp_path / "bad.jsonl"))
    assert (code, "line 1" in err) == (2, True)
