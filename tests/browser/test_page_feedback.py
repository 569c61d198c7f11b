"""Feedback on the page: the line that departs is marked, the hint shown, all of it as text."""

import json

import pytest
from playwright.sync_api import Page, expect
from scripting import script, texts

from lorid.engines.scripted import ScriptedEngine
from lorid.method.roles import Role

pytestmark = pytest.mark.timeout(60)
QUESTION = "Tom has 12 apples. He gives 5 away and buys 4 more. How many are there?"
HOSTILE = "<img src=x onerror=\"document.title='broken'\">"
WRONG = f"He keeps {HOSTILE} some.\nSo 12 - 5 = 8. {HOSTILE}\nThen 8 + 4 = 12.\n--> 12 END"
RULE = "What is given away is subtracted."


@pytest.fixture
def page(endpoint_at, open_page, request) -> Page:
    rules = f"{RULE}\nThe result is 11.\nAdd {HOSTILE} whatever is bought."
    roles = script(intuitive=texts("11"), deep=texts("11")) | {Role.KNOWLEDGE_GENERATOR: [rules]}
    return open_page(endpoint_at(ScriptedEngine(roles)), **getattr(request, "param", {}))


def grade(page: Page, **fields: str) -> None:
    page.locator("#items").fill(json.dumps({"id": "a", "question": QUESTION, **fields}))
    page.locator("#grade-start").click()
    expect(page.locator("#summary")).to_contain_text("1 of 1")


def test_the_departing_line_is_marked_and_the_hint_shown_as_text(page, look):
    page.get_by_role("tab", name="Grade").click()
    page.get_by_label("say where submissions depart").check()
    grade(page, reference="11", submission=WRONG)
    note = page.locator(".feedback")
    expect(note.locator("mark")).to_have_text(f"So 12 - 5 = 8. {HOSTILE}")
    expect(note.locator(".line")).to_have_count(4)
    expect(note).to_contain_text("Line 2 does not hold: 12 - 5 = 8")
    expect(note.locator("li")).to_have_text([RULE, f"Add {HOSTILE} whatever is bought."])
    assert page.locator("main img").count() == 0
    assert page.title() == "lorid"
    look(page, "feedback")


def test_what_is_exact_waits_until_the_keyboard_asks(page):
    page.get_by_role("tab", name="Grade").click()
    page.get_by_label("say where submissions depart").focus()
    page.keyboard.press("Space")
    grade(page, reference="11", submission=WRONG)
    exact = page.locator(".feedback details p")
    expect(exact).to_be_hidden()
    page.get_by_label("The submission").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(exact).to_have_text("The left side is 7")


def test_nothing_is_asked_for_or_shown_unless_it_is_wished(page):
    page.get_by_role("tab", name="Grade").click()
    grade(page, reference="11", submission=WRONG)
    expect(page.locator("#results tr")).to_have_count(1)
    page.get_by_label("say where submissions depart").check()
    grade(page, reference="7", submission="7")
    expect(page.locator(".feedback li").first).to_be_visible()
    expect(page.locator(".feedback mark")).to_have_count(0)


@pytest.mark.parametrize(
    "page",
    [{"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}],
    indirect=True,
)
def test_a_dark_phone_shows_the_mark_without_scrolling_sideways(page, look):
    page.get_by_role("tab", name="Grade").click()
    page.get_by_label("say where submissions depart").check()
    grade(page, reference="11", submission="x" * 300 + "\n12 - 5 = 8\n--> 8 END")
    expect(page.locator(".feedback mark")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])"
        "(getComputedStyle(document.querySelector('.feedback mark')))"
    )
    assert ground != ink
    look(page, "feedback-dark")
