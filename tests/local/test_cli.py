"""The command line: instant, helpful, and one line with exit code 2 for a user's mistake."""

import json
import subprocess
import sys

import pytest

from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store

HEAVY = ("ray", "torch", "vllm", "transformers")


def test_importing_lorid_and_its_command_line_loads_nothing_heavy():
    check = f"import sys, lorid.cli; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_config_check_names_every_problem_and_exits_2(lorid, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: demo\ntraining: {rank: -1, rnk: 2}\n")
    code, _, err = lorid("config", "check", str(file))
    assert code == 2
    assert "training.rank" in err
    assert "training.rnk" in err
    assert "Traceback" not in err


def test_config_show_prints_what_config_check_accepts(lorid, tmp_path):
    code, out, _ = lorid("config", "show", "--preset", "demo", "--set", "training.rank=8")
    assert code == 0
    assert "rank: 8" in out
    (tmp_path / "full.yaml").write_text(out)
    assert lorid("config", "check", str(tmp_path / "full.yaml"))[0] == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "check", "missing.yaml"],
        ["config", "show", "--preset", "huge"],
        ["plan", "missing.yaml"],
        ["plan"],
        ["plan", "--preset", "demo", "--set", "teacher.prices=cheap", "--set", "store={tmp}"],
        ["knowledge", "push", "knowledge/nobody/1", "--to", "org/name", "--store", "{tmp}"],
        ["knowledge", "push", "data/nobody/1", "--to", "org/name", "--store", "{tmp}"],
        ["runs", "show", "nobody", "--store", "{tmp}"],
        ["runs", "fetch", "data/nobody/1", "--store", "{tmp}"],
        ["runs", "fetch", "../etc", "--store", "{tmp}"],
        ["runs", "fetch", "data/nobody", "--store", "{tmp}"],
        ["report", "nobody", "--store", "{tmp}"],
        ["replay", "missing.jsonl"],
        ["solve", "How many?", "--url", "http://127.0.0.1:9"],
        ["grade", "missing.jsonl", "-o", "{tmp}/out.jsonl"],
        ["solve", "How many?", "--max-rounds", "0"],
        ["unknown"],
    ],
)
def test_a_mistake_is_exit_2_without_a_traceback(lorid, tmp_path, arguments):
    code, _, err = lorid(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert code == 2
    assert err.strip()
    assert "Traceback" not in err


def test_an_artifact_is_listed_shown_and_fetched(lorid, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "rows.jsonl").write_text("{}\n")
    store = open_store(str(tmp_path / "store"))
    record = publish(store, tmp_path / "made", kind="data", name="mine", inputs={"seed": 1})
    place = ["--store", str(tmp_path / "store")]
    (listed,) = json.loads(lorid("runs", "list", "--json", *place)[1])
    assert listed["name"] == "mine"
    assert record.address in lorid("runs", "list", *place)[1]
    assert json.loads(lorid("runs", "list", "--kind", "triple", "--json", *place)[1]) == []
    (listed,) = json.loads(lorid("runs", "list", "--name", "mine", "--json", *place)[1])
    assert listed["version"] == record.version
    assert record.address in lorid("runs", "show", "mine", *place)[1]
    out = tmp_path / "out"
    assert lorid("runs", "fetch", record.address, "-o", str(out), *place)[0] == 0
    assert (out / "rows.jsonl").read_text() == "{}\n"
    newest = publish(store, tmp_path / "made", kind="data", name="mine", inputs={"seed": 2})
    told = json.loads(lorid("runs", "fetch", "data/mine", "-o", str(out), "--json", *place)[1])
    assert told == {"artifact": newest.address, "files": [str(out / "rows.jsonl")]}


@pytest.mark.parametrize("arguments", [[], ["triple"]])
def test_a_noun_alone_shows_its_help(lorid, arguments):
    code, _, err = lorid(*arguments)
    assert code == 2
    assert err.startswith("Usage: lorid")


def test_config_check_has_its_findings_as_json(lorid, tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: demo\n")
    code, out, _ = lorid("config", "check", str(file), "--json")
    assert (code, json.loads(out)["ok"]) == (0, True)
    file.write_text("preset: demo\ntraining: {rank: -1, rnk: 2}\n")
    code, out, err = lorid("config", "check", str(file), "--json")
    found = json.loads(out)
    assert (code, found["ok"], len(found["problems"])) == (2, False, 2)
    assert err.startswith("error: ")


def test_an_output_that_cannot_be_written_is_one_line(lorid, tmp_path):
    items = tmp_path / "items.jsonl"
    items.write_text('{"id": "a", "question": "?", "reference": "1"}\n')
    # Nobody, root included, can make a file below a file.
    for out in (items / "out.jsonl", "/proc/out.jsonl"):
        code, _, err = lorid("grade", str(items), "-o", str(out))
        assert code == 2
        assert err.startswith(f"error: cannot use {out}: ")
        assert len(err.splitlines()) == 1
