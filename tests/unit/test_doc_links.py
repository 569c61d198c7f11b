"""The docs hang together: links lead to files and headings that exist, the index has every page."""

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# [text](target) and ![text](target), not inside `code`.
LINK = re.compile(r"(?<!`)\[[^\]\n]*\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
ELSEWHERE = ("http://", "https://", "mailto:")


@cache
def anchors(page):
    """Names of a page's headings, as GitHub makes them."""
    text = FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.strip().replace(" ", "-") for heading in plain}


def links(page):
    """Targets of a page's links into the repository."""
    text = FENCE.sub("", page.read_text())
    found = (match["target"] for match in LINK.finditer(text))
    return [target for target in found if not target.startswith(ELSEWHERE)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    dead = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            dead.append(target)
    assert dead == []


def test_the_index_has_every_page():
    named = {(DOCS / target.partition("#")[0]).resolve() for target in links(DOCS / "README.md")}
    missing = [
        str(page.relative_to(DOCS))
        for page in sorted(DOCS.rglob("*"))
        if page.suffix in (".md", ".py") and page.name != "README.md" and page not in named
    ]
    assert missing == [], "add them to the table of docs/README.md"


def test_the_rooms_stand_in_the_order_that_is_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    drawn = "\n".join(layers).replace("lorid.", "")
    assert f"```\n{drawn}\n```" in (DOCS / "architecture.md").read_text()


def test_headings_and_links_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two`: three\n\n[a](b.md#c) `[no](link)` [x](https://y)\n\n```\n[no](z)\n```\n"
    )
    assert anchors(page) == {"one-two-three"}
    assert links(page) == ["b.md#c"]
