"""Command lines of `lorid` in texts, parsed as the command would, without running anything."""

import re
import shlex

from lorid.cli.app import command_tree

FENCE = re.compile(r"^```bash\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
# What a shell would take for itself: variables before the command; comments, pipes and
# redirections behind it.
BEFORE = re.compile(r"^\s*(?:[A-Z_]+=\S+ )*")
# Parsing these already does what they say: --install-completion would change this machine's shell.
ACTS_AT_ONCE = {"--install-completion", "--show-completion", "--version", "--help"}
BEHIND = re.compile(r" (?:#|\||>>?|&&?|<).*$")


def parse(arguments):
    """Raises typer's own error for a command, an option or a value that there is not."""
    if ACTS_AT_ONCE & set(arguments):
        return
    command = command_tree()
    context = command.make_context("lorid", list(arguments))
    while hasattr(command, "commands"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, list(rest), parent=context)
    assert context.args == []


def lines_of(text):
    """The lines of a page's bash blocks, continued ones joined."""
    joined = "".join(FENCE.findall(text)).replace("\\\n", " ")
    return [BEHIND.sub("", BEFORE.sub("", line)) for line in joined.splitlines()]


def lorid_lines(text):
    """Arguments of each `lorid ...` in a page's bash blocks."""
    return [shlex.split(line)[1:] for line in lines_of(text) if line.startswith("lorid ")]


def named_commands(text):
    """`lorid NOUN VERB` in running text: the words that name a command."""
    said = re.findall(r"`lorid ((?:[a-z]+ ?)+)[^`]*`", re.sub(FENCE, "", text))
    return [one.split() for one in said]
