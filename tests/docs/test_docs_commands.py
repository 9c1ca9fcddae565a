"""Commands that documents show, and that messages recommend, exist and are called rightly."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer
from docs_pages import ROOT, Block, blocks, pages

from toolkit.cli import app

COMMAND = typer.main.get_command(app)
_UsageError = next(b for b in typer.BadParameter.__mro__ if b.__name__ == "ClickException")
# Words of a message that follow "toolkit" without being a command.
_NAMED_LATER = re.compile(r"`toolkit ([a-z]+)(?: ([a-z]+))?[^`]*`")


def lines_of(block: Block) -> list[str]:
    """Return the commands of a console block, continuations joined."""
    text = re.sub(r"\\\n\s*", " ", block.text)
    return [line.removeprefix("$ ").strip() for line in text.splitlines() if line.strip()]


def resolve(words: list[str]) -> tuple[Any, str, list[str]]:
    """Return the command that words name, its name, and the words that are its arguments."""
    command, name = COMMAND, "toolkit"
    while getattr(command, "commands", None) and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            pytest.fail(f"`{name}` has no command {words[0]!r}")
        name, command = f"{name} {words[0]}", command.commands[words[0]]
        words = words[1:]
    return command, name, words


def parse(words: list[str]) -> None:
    """Parse arguments as the command line would, without running the command."""
    command, name, rest = resolve(words)
    if rest in (["--help"], ["-h"]):
        return
    command.make_context(name, rest)


CALLS = [
    (str(block), part.strip())
    for block in blocks("console")
    for line in lines_of(block)
    for part in line.split("&&")
    if part.strip().startswith("toolkit")
]


@pytest.mark.parametrize(("place", "call"), CALLS)
def test_a_shown_command_parses(place: str, call: str):
    """Every `toolkit …` line of a console block is accepted by the command's own parser."""
    try:
        parse(shlex.split(call)[1:])
    except _UsageError as error:
        pytest.fail(f"{place}: {call}: {error}")


def test_there_are_commands_to_check():
    """The search above finds them."""
    assert len(CALLS) >= 30


def test_a_wrong_command_would_be_found():
    """An option that does not exist, a missing argument and a wrong value do not parse."""
    for call in ("run --nonsense x", "promote", "runs --limit many"):
        with pytest.raises(_UsageError):
            parse(shlex.split(call))
    with pytest.raises(pytest.fail.Exception):
        parse(["no-such-command"])


def test_console_blocks_hold_commands_that_the_page_means():
    """Only `toolkit`, `make`, `cd`, `cp` and `.` appear, so nothing goes unchecked."""
    known = {"toolkit", "make", "cd", "cp", "."}
    for block in blocks("console"):
        for line in lines_of(block):
            for part in line.split("&&"):
                assert part.split()[0] in known, f"{block}: {part}"


def test_make_targets_exist():
    """Every `make TARGET` that a page names is a target of the Makefile."""
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    for each in pages():
        code = [*each.inline_code, *(line for b in each.blocks for line in b.text.splitlines())]
        for text in code:
            for target in re.findall(r"^make ([a-z]+)", text):
                assert target in targets, f"{each.name}: make {target}"


@pytest.mark.parametrize("each", pages(), ids=lambda p: p.name)
def test_inline_commands_exist(each: Any):
    """`toolkit …` in running text names a command, and options that it has."""
    for code in each.inline_code:
        if not re.match(r"toolkit [a-z]", code):
            continue
        command, name, rest = resolve(shlex.split(code.replace("…", ""))[1:])
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        wanted = {word for word in rest if re.match(r"--?[a-z]", word)}
        assert wanted <= options | {"--help"}, f"{each.name}: {code} ({name})"


def test_messages_recommend_commands_that_exist():
    """A next step in an error or a hint names a real command."""
    found = 0
    for path in sorted((ROOT / "toolkit").rglob("*.py")):
        for match in _NAMED_LATER.finditer(path.read_text("utf-8")):
            first, second = match.groups()
            group = COMMAND.commands.get(first)
            assert group is not None, f"{path.relative_to(ROOT)}: {match[0]}"
            if getattr(group, "commands", None) and second:
                assert second in group.commands, f"{path.relative_to(ROOT)}: {match[0]}"
            found += 1
    assert found > 20


def test_magics_of_the_page_are_those_of_the_extension():
    """docs/magics.md and `%toolkit` know the same words."""
    from toolkit.magics import CellMagics, LineMagics

    text = (ROOT / "docs/magics.md").read_text("utf-8")
    for name in CellMagics.kinds:
        assert f"%%{name}" in text or f"%{name}" in text
    verbs = set(LineMagics(None)._verbs)  # type: ignore[arg-type]
    assert set(re.findall(r"^\| `%toolkit ([a-z]+)", text, re.MULTILINE)) == verbs
