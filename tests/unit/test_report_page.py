"""The report as a file: small, whole, inert, and without anybody else."""

import base64
import gzip
import hashlib
import json
import re
from xml.etree import ElementTree

import pytest
from report_rows import long_rows, report_data, row

from lorid.method.roles import Role
from lorid.report.analysis import analyse
from lorid.report.data import LossPoint, StageCost
from lorid.report.explorer import pack
from lorid.report.files import write_report
from lorid.report.page import inert_json

HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><!-- \u2028 --> 7 END"
MAX_PAGE_BYTES = 5_000_000


def unpacked(block):
    return json.loads(gzip.decompress(base64.b64decode(block)))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    one = row(HOSTILE, [7], [7], knowledge=HOSTILE)
    one |= {"question": HOSTILE, "intuitive": [HOSTILE], "deep": [HOSTILE]}
    data = report_data([one], config_yaml=f"name: {HOSTILE}\n", records=[HOSTILE])
    write_report(analyse(data), folder)
    return folder


def test_figures_lie_beside_the_page(written):
    names = {path.name for path in (written / "report-figures").iterdir()}
    for stem in ("accuracy-over-n", "accuracy-over-generations", "rounds", "calibration", "gate"):
        assert {f"{stem}.svg", f"{stem}.csv"} <= names
    assert {"methods.csv", "buckets.csv"} <= names
    # Nothing was trained and nothing was bought.
    assert not names & {"loss.svg", "stages.svg"}


def test_only_the_pages_own_script_and_style_may_run(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', html)[1].replace("&#39;", "'")
    assert policy.startswith("default-src 'none'; ")
    for name, found in (
        ("script-src", re.search(r'<script type="module">(.*?)</script>', html, re.S)),
        ("style-src", re.search(r"<style>(.*?)</style>", html, re.S)),
    ):
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href|action)\s*=\s*["']?(https?:)?//""", html)
    markup = re.sub(r"<script.*?</script>", "", html, flags=re.S)
    assert not re.search(r"<[^>]*\s(style|on\w+)=", markup)


def test_what_a_model_wrote_never_becomes_markup(written):
    html = (written / "report.html").read_text(encoding="utf-8")
    assert "<img" not in re.sub(r'<script type="module">.*?</script>', "", html, flags=re.S)
    assert html.count("</script>") == html.count("<script")
    assert "<" not in inert_json({"text": HOSTILE})
    assert json.loads(inert_json({"text": HOSTILE})) == {"text": HOSTILE}


def test_the_explorer_holds_every_text():
    rows = [row(f"q{n}", [1, 7, 7], [2, 7, 8], question=f"Question {n}?") for n in range(90)]
    packed = pack(analyse(report_data(rows)))
    index = unpacked(packed.blocks["index"])
    assert [one["question"] for one in index] == [one["question"] for one in rows]
    details = [one for n in range(3) for one in unpacked(packed.blocks[f"page-{n}"])]
    assert len(details) == 90
    assert packed.num_left_out == 0
    for detail, one in zip(details, rows, strict=True):
        assert detail["met"] == 2
        assert (detail["intuitive"], detail["deep"]) == ([2], [2])
        for side, name in ((0, "intuitive"), (1, "knowledge"), (2, "deep")):
            assert [drawn[side][0] for drawn in detail["rounds"]] == one[name]
        assert [drawn[2][1:3] for drawn in detail["rounds"]] == [
            ["2", False], ["7", True], ["8", False],
        ]  # fmt: skip


def test_rounds_after_the_decision_go_first_where_there_is_no_room():
    rows = [row(f"q{n}", [n, 7, *range(100, 118)], [2, 7, *range(200, 218)]) for n in range(40)]
    analysis = analyse(report_data(rows))
    whole = pack(analysis)
    less = pack(analysis, max_bytes=whole.num_bytes - 1)
    least = pack(analysis, max_bytes=1)
    assert whole.num_left_out < less.num_left_out < least.num_left_out
    assert least.num_bytes < less.num_bytes < whole.num_bytes
    for detail, case in zip(unpacked(least.blocks["page-0"]), analysis.cases, strict=True):
        assert len(detail["rounds"]) == case.score.num_rounds
        assert detail["left_out"] == 20 - case.score.num_rounds


@pytest.mark.parametrize(
    ("one", "missing"),
    [
        (row("no label", [1, 2], [2, 3], gold=None), {"calibration", "accuracy-over-generations"}),
        (row("never drawn", [], []), {"calibration", "knowledge", "gate"}),
        (row("one side", [7], []), {"knowledge", "gate"}),
    ],
)
def test_what_there_are_no_numbers_for_is_not_shown(tmp_path, one, missing):
    analysis = analyse(report_data([one]))
    write_report(analysis, tmp_path)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for name in missing:
        assert f'id="figure-{name}"' not in html
        assert not (tmp_path / "report-figures" / f"{name}.csv").exists()
    assert 'id="figure-accuracy-over-n"' in html
    (detail,) = unpacked(pack(analysis).blocks["page-0"])
    assert len(detail["rounds"]) == max(len(one["intuitive"]), len(one["deep"]))


def test_a_chart_with_one_step_or_one_loss_can_be_drawn(tmp_path):
    point = LossPoint(step=1, loss=0.0, learning_rate=0.0, tokens_per_s=0.0, validation_loss=0.5)
    data = report_data(
        [row("a", [7], [7])],
        max_rounds=1,
        loss_curves={Role.DEEP_REASONER: [point]},
        stages=[StageCost(stage="knowledge", seconds=0.0)],
        knowledge_details={"caught": {"<b>&": 1}},
    )
    write_report(analyse(data), tmp_path)
    for path in (tmp_path / "report-figures").glob("*.svg"):
        assert not {"nan", "inf"} & set(re.findall(r"[a-z]+", path.read_text()))
        ElementTree.parse(path)


def test_1319_questions_with_20_rounds_take_less_than_5_megabytes(tmp_path):
    rows = long_rows(1319, num_rounds=20)
    assert sum(len(json.dumps(one)) for one in rows) > 20_000_000
    write_report(analyse(report_data(rows)), tmp_path)
    page = tmp_path / "report.html"
    assert page.stat().st_size < MAX_PAGE_BYTES
    assert "are left out of this file" not in page.read_text(encoding="utf-8")
