"""Every command that the docs show is one that lorid takes; every file that they name is there."""

import re
from pathlib import Path

import pytest
from command_lines import lines_of, lorid_lines, named_commands, parse

from lorid.cli.app import command_tree

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = r"(?:jobs|deploy|locks|docs|serve|benchmarks|tests)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_blocks_parse(page):
    for arguments in lorid_lines(page.read_text()):
        parse(arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_text_exist(page):
    for words in named_commands(page.read_text()):
        command = command_tree()
        while words and hasattr(command, "commands"):
            assert words[0] in command.commands, " ".join(words)
            command, words = command.commands[words[0]], words[1:]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_of_the_repository_that_commands_name_are_there(page):
    lines = "\n".join(lines_of(page.read_text()))
    named = re.findall(rf"(?<![\w/.:-]){FOLDERS}/[\w./-]+\.\w+", lines)
    assert [one for one in named if not (ROOT / one).exists()] == []


def test_mistakes_are_seen():
    with pytest.raises(Exception, match="No such command"):
        parse(["trible", "list"])
    with pytest.raises(Exception, match="No such option"):
        parse(["runs", "list", "--sotre", "x"])
    text = "Say `lorid runs show NAME`.\n```bash\nA=b lorid token new me >> tokens   # and\n```\n"
    assert named_commands(text) == [["runs", "show"]]
    assert lorid_lines(text) == [["token", "new", "me"]]
