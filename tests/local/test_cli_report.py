"""`lorid report`: a run's report from its store, and one made of an attempts file."""

import json

from report_rows import row

from lorid.artifacts.records import publish
from lorid.artifacts.store import open_store


def test_a_runs_report_is_fetched_with_its_figures(lorid, tmp_path):
    made = tmp_path / "made"
    (made / "report-figures").mkdir(parents=True)
    (made / "report.html").write_text("page")
    (made / "report-figures" / "rounds.csv").write_text("rounds\n")
    place = ["--store", str(tmp_path / "store")]
    publish(open_store(place[1]), made, kind="report", name="mine", inputs={"seed": 1})
    for out, page in (("folder", "folder/report.html"), ("other/mine.html", "other/mine.html")):
        code, printed, _ = lorid("report", "mine", *place, "-o", str(tmp_path / out))
        assert (code, printed.strip()) == (0, str(tmp_path / page))
        assert (tmp_path / page).read_text() == "page"
        beside = (tmp_path / page).parent / "report-figures" / "rounds.csv"
        assert beside.read_text() == "rounds\n"


def test_a_report_without_figures_is_the_page_alone(lorid, tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (made / "report.html").write_text("page")
    place = ["--store", str(tmp_path / "store")]
    publish(open_store(place[1]), made, kind="report", name="mine", inputs={"seed": 1})
    assert lorid("report", "mine", *place, "-o", str(tmp_path / "out"))[0] == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_an_attempts_file_is_reported_without_a_run(lorid, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row(name, [7], [7])) + "\n" for name in "ab"))
    out = tmp_path / "out"
    code, printed, _ = lorid("report", str(file), "--rule", "same-round", "-o", str(out))
    assert (code, printed.strip()) == (0, str(out / "report.html"))
    assert "2 questions, rule <em>same-round</em>" in (out / "report.html").read_text()
    rounds = (out / "report-figures" / "rounds.csv").read_text()
    assert rounds == "rounds,right,not_right,unlabelled\n1,2,0,0\n"


def test_an_attempts_file_that_cannot_be_used_is_one_line(lorid, tmp_path):
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(row("a", [7], [7])) + "\nnot json\n")
    for arguments in ([str(file)], [str(tmp_path / "none.jsonl")], [str(file), "--rule", "best"]):
        code, _, err = lorid("report", *arguments, "-o", str(tmp_path / "out"))
        assert code == 2
        assert "Traceback" not in err
    assert not (tmp_path / "out").exists()
