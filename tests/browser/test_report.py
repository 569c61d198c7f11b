"""The report as its readers meet it: by bucket, question by question, on a phone and on paper."""

import pytest
from playwright.sync_api import Page, expect
from report_rows import report_data, row

from lorid.method.roles import Role
from lorid.report.analysis import analyse
from lorid.report.data import LossPoint, StageCost
from lorid.report.files import write_report

pytestmark = pytest.mark.timeout(60)
HOSTILE = "</script><img src=x onerror=\"document.title='broken'\"><b>7</b>"
LATEX = r"Half of it: \( \frac{x}{2} \) costs $5 and $10. <<4/2=2>>"


def rows():
    """One of each kind, then enough for several pages."""
    spoken = row("spoken", [1, 7, 3], [2, 7, 4], question=f"What is {LATEX}? {HOSTILE}")
    spoken["intuitive"][1] = f"{LATEX}\n--> 7 END"
    spoken["knowledge"][1] = HOSTILE
    return [
        spoken,
        row("both", [7], [7], question="Both?"),
        row("wrong", [3], [3], question="Wrong?"),
        row("never", [1, 2, 1], [4, 5, 6], question="Never?"),
        row("half", [r"\frac{1}{2}"], ["0.5"], gold="1/2", question="Half?"),
        *(row(f"more-{n}", [7], [2, 7], question=f"More {n}?") for n in range(40)),
    ]


@pytest.fixture(scope="module")
def report_url(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    curve = [
        LossPoint(step=n, loss=1 / n, learning_rate=1e-3, tokens_per_s=9) for n in range(1, 30)
    ]
    data = report_data(
        rows(),
        max_rounds=3,
        loss_curves=dict.fromkeys(Role, curve),
        knowledge_details={"num_kept": 4, "caught": {"copied-phrase": 2}},
        stages=[StageCost(stage="knowledge", seconds=3.0)],
        config_yaml=f"name: {HOSTILE}\n",
        records=["data/tiny/1"],
    )
    write_report(analyse(data), folder)
    return (folder / "report.html").as_uri()


def bucket(page: Page, name: str) -> None:
    page.get_by_role("radio", name=name).check()


def test_questions_are_found_by_bucket_and_opened(open_page, requested, report_url, look):
    page = open_page(report_url)
    found = page.locator("#found")
    expect(found).to_have_text("45 of 45 questions")
    expect(page.locator("#questions li")).to_have_count(15)
    for name, number in (
        ("both right", 2), ("intuitive only", 40), ("deep only", 0), ("neither right", 3),
        ("agreed but wrong", 1), ("never agreed", 1), ("bad knowledge", 0),
    ):  # fmt: skip
        bucket(page, name)
        expect(found).to_have_text(f"{number} of 45 questions")
    bucket(page, "all")
    page.get_by_role("button", name="Next", exact=True).click()
    expect(page.locator("#page")).to_have_text("page 2 of 3")
    page.get_by_label("Find in questions").fill("what is")
    expect(found).to_have_text("1 of 45 questions")

    page.locator("#questions a").click()
    question = page.locator("#question")
    expect(question.locator("#why")).to_have_text(
        "The sets of the two sides met in round 2 at 7: the intuitive side gave it in round 2, "
        "the deep side gave it in round 2. The label is 7: identical. Confidence 50%; 6 texts."
    )
    used = question.locator(".rounds >> nth=0").locator("> .round")
    expect(used).to_have_count(2)
    expect(used.nth(0).locator(".verdict")).to_contain_text("1  |  2:  no agreement yet")
    expect(used.nth(1).locator(".verdict")).to_contain_text("7  |  7:  the sides agree")
    assert used.nth(1).locator(".intuitive mfrac").count() == 1
    expect(used.nth(1).locator(".intuitive .text")).to_contain_text("costs $5 and $10.")
    expect(used.nth(0).locator(".deep .given")).to_have_text("answers 2 not right")
    expect(question.get_by_text("1 round drawn after the decision")).to_be_visible()
    look(page, "report-opened")

    # What a model wrote is text, wherever it stands.
    expect(used.nth(1).locator(".knowledge .text")).to_have_text(HOSTILE)
    expect(question.locator(".asked")).to_contain_text("</script><img src=x")
    assert page.locator("main img, main b b").count() == 0
    assert page.title() == "lorid · tiny"
    assert requested == [report_url]


def test_a_verdict_says_why(open_page, report_url):
    page = open_page(report_url)
    why = page.locator("#why")
    bucket(page, "agreed but wrong")
    page.locator("#questions a").click()
    expect(why).to_contain_text("The label is 7: different as rationals.")
    page.get_by_role("button", name="All questions").click()
    bucket(page, "never agreed")
    page.locator("#questions a").click()
    expect(why).to_contain_text("No agreement in 3 rounds. The fallback 1 has most votes")
    page.get_by_role("button", name="All questions").click()
    bucket(page, "both right")
    page.get_by_text("Half?").click()
    expect(why).to_contain_text("equal as rationals")
    assert why.locator("mfrac").count() == 1


def test_the_keyboard_is_enough(open_page, report_url):
    page = open_page(report_url)
    expect(page.locator("#questions li")).to_have_count(15)
    page.get_by_role("radio", name="all").focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#found")).to_have_text("2 of 45 questions")
    page.locator("#questions a").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#question-title")).to_be_focused()
    expect(page.locator("#question-title")).to_have_text("Question both")
    page.get_by_role("button", name="Next question").press("Enter")
    expect(page.locator("#question-title")).to_have_text("Question half")
    expect(page.get_by_role("button", name="Next question")).to_be_disabled()
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_be_focused()
    page.go_back()
    expect(page.locator("#question-title")).to_have_text("Question half")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(open_page, report_url, look, scheme):
    page = open_page(report_url, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    expect(page.locator("#questions li")).to_have_count(15)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    look(page, f"report-phone-{scheme}")
    page.locator("#questions a").first.click()
    expect(page.locator("#question .round").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    look(page, f"report-phone-{scheme}-opened")


def test_paper_gets_plots_tables_and_the_open_question(open_page, report_url, look):
    page = open_page(report_url, color_scheme="dark")
    page.locator("#questions a").first.click()
    page.emulate_media(media="print")
    look(page, "report-print")
    for shown in ("#methods table", "#figure-rounds svg", "#figure-loss svg", "#question .round"):
        expect(page.locator(shown).first).to_be_visible()
    expect(page.get_by_role("row", name="agreed but wrong 1 the rule")).to_be_visible()
    for hidden in (".contents", "#back", "#filters"):
        expect(page.locator(hidden)).to_be_hidden()
    # Dark ink, whatever the screen's colours are.
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert ink == "rgb(29, 36, 48)"
    assert page.pdf().startswith(b"%PDF")


def test_without_scripts_tables_and_plots_are_there(open_page, report_url):
    page = open_page(report_url, java_script_enabled=False)
    expect(page.get_by_text("The questions need JavaScript")).to_be_visible()
    expect(page.locator("#figure-accuracy-over-n svg")).to_be_visible()
    expect(page.locator("#methods tbody tr")).to_have_count(6)
