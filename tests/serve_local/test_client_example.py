"""docs/examples/client.py, every cell of it, against the real graph by real HTTP."""

import runpy
from pathlib import Path

from scripting import script, texts

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
