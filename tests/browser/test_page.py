"""The page as its users meet it: a question, a batch, an error, a locked endpoint, a keyboard."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from scripting import TRIPLE, script, texts

from lorid.distributed.access import new_token
from lorid.engines.base import GenerationRequest
from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role

pytestmark = pytest.mark.timeout(60)
QUESTION = "Tom has 3 apples and finds 4 more. How many are there?"
HOSTILE = "<img src=x onerror=\"document.title='broken'\"> --> 7 END"


def ask(page: Page, question: str = QUESTION) -> None:
    page.get_by_label("A question of mathematics").fill(question)
    page.get_by_role("button", name="Solve").click()


def item(name: str, **fields: str) -> str:
    return json.dumps({"id": name, "question": QUESTION, **fields})


def grade(page: Page, *lines: str) -> None:
    page.get_by_role("tab", name="Grade").click()
    page.locator("#items").fill("\n".join(lines))
    page.locator("#grade-start").click()


def test_a_question_is_solved_before_the_eyes(endpoint_at, open_page, look):
    fraction = r"Half of it: \( \frac{x}{2} \) costs $5 and $10. <<4/2=2>>--> \frac{1}{2} END"
    engine = ScriptedEngine(script(intuitive=["--> 8 END", fraction], deep=[fraction, fraction]))
    page = open_page(endpoint_at(engine))
    expect(page.locator("#served")).to_have_text(f"serves {TRIPLE}")
    ask(page)
    expect(page.locator(".final")).to_have_text("12")  # a fraction, drawn: 1 over 2
    assert page.locator(".final mfrac").count() == 1
    rounds = page.locator(".round")
    expect(rounds).to_have_count(2)
    expect(rounds.nth(0).locator(".verdict")).to_contain_text("no agreement yet")
    expect(rounds.nth(1).locator(".verdict")).to_contain_text("the sides agree")
    expect(rounds.nth(0).locator(".knowledge .text")).to_have_text("To find a total, add.")
    deep = rounds.nth(1).locator(".deep .text")
    assert deep.locator("math").count() == 1
    expect(deep).to_contain_text("costs $5 and $10.")
    expect(deep).not_to_contain_text("<<")
    expect(page.locator("#answer .hint")).to_contain_text("2 rounds, 6 texts")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    look(page, "solved")


def test_rounds_appear_before_the_answer_and_can_be_stopped(endpoint_at, open_page):
    async def slow(_: GenerationRequest) -> str:
        await asyncio.sleep(0.2)
        return f"--> {len(engine.history)} END"

    engine = ScriptedEngine(dict.fromkeys(Role, slow) | {None: ["--> 0 END"]})
    page = open_page(endpoint_at(engine, max_rounds=50))
    ask(page)
    expect(page.locator(".round")).to_have_count(2)
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("#answer")).to_have_text("stopped")
    expect(page.get_by_role("button", name="Solve")).to_be_enabled()
    drawn = len(engine.history)
    page.wait_for_timeout(600)
    assert len(engine.history) <= drawn + 1


def test_what_a_model_writes_is_text_and_never_markup(endpoint_at, open_page):
    page = open_page(endpoint_at(ScriptedEngine(script(intuitive=[HOSTILE], deep=[HOSTILE]))))
    ask(page, "<b>bold</b>")
    expect(page.locator(".final")).to_have_text("7")
    expect(page.locator(".intuitive .text")).to_contain_text("<img src=x")
    assert page.locator("main img").count() == 0
    assert page.title() == "lorid"


def test_a_batch_is_graded_filtered_and_downloaded(endpoint_at, open_page, look, tmp_path):
    page = open_page(endpoint_at(ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))))
    lines = [item(f"a{n}", reference="7" if n % 3 else "8") for n in range(60)]
    file = tmp_path / "batch.jsonl"
    file.write_text("\n".join([*lines, "not json", item("b", submission="9")]) + "\n")
    page.get_by_role("tab", name="Grade").click()
    page.locator("#file").set_input_files(file)
    summary = page.locator("#summary")
    expect(summary).to_contain_text("61 of 61: 40 correct, 21 incorrect, 0 undecided, 0 errors")
    expect(summary).to_contain_text("left out: line 61: is not JSON")
    expect(page.locator("#results tr")).to_have_count(50)
    page.get_by_role("button", name="Next").click()
    expect(page.locator("#results tr")).to_have_count(11)
    page.locator("#filter").select_option("incorrect")
    expect(page.locator("#results tr")).to_have_count(21)
    assert set(page.locator("#results .tag").all_text_contents()) == {"incorrect"}
    look(page, "graded")
    with page.expect_download() as download:
        page.get_by_role("button", name="Download results").click()
    rows = [json.loads(row) for row in Path(download.value.path()).read_text().splitlines()]
    assert [row["id"] for row in rows] == [*(f"a{n}" for n in range(60)), "b"]
    assert {row["triple"] for row in rows} == {TRIPLE}


def test_errors_are_said_in_one_line(endpoint_at, open_page, look):
    page = open_page(endpoint_at(ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))))
    ask(page, "x" * 40_000)
    error = page.get_by_role("alert")
    expect(error).to_be_visible()
    assert "characters" in (error.text_content() or "")
    look(page, "error")
    grade(page, "nothing of use")
    expect(error).to_have_text("line 1: is not JSON")
    grade(page, item("a", reference="7"))
    expect(page.locator("#summary")).to_contain_text("1 correct")
    expect(error).to_be_hidden()


def test_a_locked_endpoint_asks_for_its_token(endpoint_at, open_page, tmp_path):
    token, line = new_token("reader")
    (tmp_path / "tokens").write_text(line + "\n")
    engine = ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))
    page = open_page(endpoint_at(engine, serving={"tokens_file": str(tmp_path / "tokens")}))
    expect(page.locator("#served")).to_have_text("locked")
    page.get_by_label("This endpoint wants a token").fill(token)
    page.get_by_role("button", name="Use it").click()
    expect(page.locator("#served")).to_have_text(f"serves {TRIPLE}")
    expect(page.locator("#access")).to_be_hidden()
    ask(page)
    expect(page.locator(".final")).to_have_text("7")
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#card")).to_contain_text("at most 3 rounds")


def test_the_keyboard_is_enough(endpoint_at, open_page):
    page = open_page(endpoint_at(ScriptedEngine(script(intuitive=texts("7"), deep=texts("7")))))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Grade")).to_be_focused()
    expect(page.locator("#items")).to_be_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Tab")
    expect(page.get_by_label("A question of mathematics")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Control+Enter")
    expect(page.locator(".final")).to_have_text("7")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(endpoint_at, open_page, look, scheme):
    long = "So it is " + "a" * 300 + ". --> 7 END"
    page = open_page(
        endpoint_at(ScriptedEngine(script(intuitive=[long], deep=[long]))),
        viewport={"width": 390, "height": 844},
        color_scheme=scheme,
    )
    ask(page)
    expect(page.locator(".final")).to_have_text("7")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", ground)[:3])) / 3
    assert (brightness > 128) == (scheme == "light")
    look(page, f"phone-{scheme}")


TUTORED = "Tom has 12 apples. He gives 5 away and buys 4 more. How many are there?"
WRONG = f"He keeps {HOSTILE} some.\nSo 12 - 5 = 8. {HOSTILE}\nThen 8 + 4 = 12.\n--> 12 END"
RULE = "What is given away is subtracted."


@pytest.fixture
def tutored(endpoint_at, open_page, request) -> Page:
    """The page of an endpoint whose knowledge holds a rule, the answer, and markup."""
    rules = f"{RULE}\nThe result is 11.\nAdd {HOSTILE} whatever is bought."
    roles = script(intuitive=texts("11"), deep=texts("11")) | {Role.KNOWLEDGE_GENERATOR: [rules]}
    page = open_page(endpoint_at(ScriptedEngine(roles)), **getattr(request, "param", {}))
    page.get_by_role("tab", name="Grade").click()
    return page


def submit(page: Page, **fields: str) -> None:
    page.locator("#items").fill(json.dumps({"id": "a", "question": TUTORED, **fields}))
    page.locator("#grade-start").click()
    expect(page.locator("#summary")).to_contain_text("1 of 1")


def test_feedback_is_shown_when_it_is_wished_and_the_exact_value_when_it_is_asked(tutored, look):
    page = tutored
    submit(page, reference="11", submission=WRONG)
    expect(page.locator("#results tr")).to_have_count(1)
    page.get_by_label("say where submissions depart").focus()
    page.keyboard.press("Space")
    submit(page, reference="11", submission=WRONG)
    note = page.locator(".feedback")
    expect(note.locator("mark")).to_have_text(f"So 12 - 5 = 8. {HOSTILE}")
    expect(note.locator(".line")).to_have_count(4)
    expect(note).to_contain_text("Line 2 does not hold: 12 - 5 = 8")
    expect(note.locator("li")).to_have_text([RULE, f"Add {HOSTILE} whatever is bought."])
    assert page.locator("main img").count() == 0
    assert page.title() == "lorid"
    look(page, "feedback")
    exact = note.locator("details p")
    expect(exact).to_be_hidden()
    page.get_by_label("The submission").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(exact).to_have_text("The left side is 7")


@pytest.mark.parametrize(
    "tutored",
    [{"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}],
    indirect=True,
)
def test_a_dark_phone_marks_the_line_within_its_width(tutored, look):
    page = tutored
    page.get_by_label("say where submissions depart").check()
    submit(page, reference="11", submission="x" * 300 + "\n12 - 5 = 8\n--> 8 END")
    mark = page.locator(".feedback mark")
    expect(mark).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = mark.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390
    submit(page, reference="7", submission="7")
    expect(page.locator(".feedback li").first).to_be_visible()
    expect(mark).to_have_count(0)
    look(page, "feedback-dark")
