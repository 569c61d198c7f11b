"""docs/examples/client.py, every cell of it, and `lorid grade` against the real graph by HTTP."""

import json
import runpy
from pathlib import Path

from scripting import script, texts
from typer.testing import CliRunner

from lorid.cli.app import app
from lorid.engines.scripted import ScriptedEngine

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "client.py"


def test_every_cell_runs(served, monkeypatch, capsys):
    engine = ScriptedEngine(script(intuitive=texts("60"), deep=texts("60"), base=texts("7")))
    monkeypatch.setenv("LORID_URL", served(engine))
    cells = runpy.run_path(str(EXAMPLE))
    assert (cells["answer"]["answer"], cells["answer"]["outcome"]) == ("60", "agreed")
    verdicts = {row["id"]: row["verdict"] for row in cells["graded"]["results"]}
    assert verdicts == {"solve": "correct", "compare": "correct", "check": "incorrect"}
    assert cells["verdicts"] == {"correct": 20}
    printed = capsys.readouterr().out
    assert "agreed on 60" in printed
    assert "lorid:base (stop)" in printed
    # The last cell shows a refusal, not a bug.
    assert printed.splitlines()[-1].startswith("refused: ")


def test_the_command_for_files_prints_its_tally_as_json(served, tmp_path):
    url = served(ScriptedEngine(script(intuitive=texts("60"), deep=texts("60"))))
    (tmp_path / "items.jsonl").write_text(
        '{"id": "a", "question": "?", "reference": "60"}\n{"id": "b", "question": "?"}\n'
    )
    output = tmp_path / "graded.jsonl"
    arguments = ["grade", str(tmp_path / "items.jsonl"), "-o", str(output), "--url", url, "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 1
    assert json.loads(done.stdout) == {
        "num_items": 2, "num_correct": 1, "num_incorrect": 0, "num_undecided": 0, "num_errors": 1,
        "output": str(output),
    }  # fmt: skip
