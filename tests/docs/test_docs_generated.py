"""What is made from the code is current, and what says facts of the code agrees with it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from docs_pages import ROOT, page

from toolkit.cli.reference import checks_text, commands, main, reference_text, setting_texts
from toolkit.errors import ToolkitError
from toolkit.execution import exit_code
from toolkit.promotion.check import RULES
from toolkit.settings import Settings
from toolkit.values import Cause, RunState

FRESH = "run `make reference` and commit docs/reference.md and docs/checks.md"


def test_the_committed_reference_is_what_the_command_line_says_now():
    """docs/reference.md equals what the generator writes."""
    assert (ROOT / "docs/reference.md").read_text("utf-8") == reference_text(), FRESH


def test_the_committed_rules_are_the_rules_of_check():
    """docs/checks.md equals what the generator writes."""
    assert (ROOT / "docs/checks.md").read_text("utf-8") == checks_text(), FRESH


def test_the_generator_writes_both_files(tmp_path: Path):
    """As `make reference` calls it."""
    assert main([str(tmp_path / "reference.md")]) == 0
    assert (tmp_path / "reference.md").read_text("utf-8") == reference_text()
    assert (tmp_path / "checks.md").read_text("utf-8") == checks_text()


def test_the_generator_says_how_it_is_called(capsys: pytest.CaptureFixture[str]):
    """Without a path it writes nothing."""
    assert main([]) == 2
    assert "docs/reference.md" in capsys.readouterr().err


def test_every_command_has_a_part_with_all_its_options():
    """No command or visible option is missing from the reference."""
    text = reference_text()
    found = 0
    for words, command in commands():
        start = text.index(f"\n### toolkit {' '.join(words)}\n")
        part = text[start : text.find("\n### ", start + 1)]
        for parameter in command.params:
            names = [name for name in parameter.opts if name.startswith("-")]
            if names and not getattr(parameter, "hidden", False):
                assert all(name in part for name in names), (words, names)
                found += 1
    assert found > 40


def test_every_command_and_argument_is_described():
    """A command without a sentence, or an argument without one, helps nobody."""
    for words, command in commands():
        assert command.help, words
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                assert parameter.help, (words, parameter.name)


def test_every_setting_is_described():
    """The docstring of Settings and its fields name the same settings."""
    assert set(setting_texts()) == set(Settings.model_fields)
    assert all(len(text) > 10 for text in setting_texts().values())


def test_a_finding_links_to_its_rule():
    """`Rule.doc` is a page and an anchor that exist."""
    for rule in RULES:
        name, _, anchor = rule.doc.partition("#")
        assert anchor in page(name).anchors


def test_the_table_of_exit_codes_is_complete():
    """Every code that a state or an error can give is in the README, and no other."""
    ends = [state for state in RunState if state.terminal or state is RunState.WAITING]
    codes = {exit_code(state, cause) for state in ends for cause in (None, *Cause)}
    codes |= {kind.exit_code for kind in _classes(ToolkitError)}
    table = page("README.md").text.partition("## Exit codes")[2].partition("\n## ")[0]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)} == codes


def _classes(kind: type[ToolkitError]) -> set[type[ToolkitError]]:
    return {kind}.union(*(_classes(child) for child in kind.__subclasses__()))


def test_the_picture_of_the_rooms_is_the_import_contract():
    """docs/architecture.md draws the layers that import-linter checks, in their order."""
    config = (ROOT / "pyproject.toml").read_text("utf-8")
    layers = re.findall(r'^  "([a-z_| ]+)",$', config.partition("layers = [")[2], re.MULTILINE)
    wanted = [name for layer in layers for name in layer.split(" | ") if name != "__main__"]
    text = page("docs/architecture.md").text.partition("## Rooms")[2]
    drawing = text.partition("```text\n")[2].partition("```")[0]
    names = [re.split(r" {2,}", line)[0] for line in drawing.splitlines()]
    drawn = [name for line in names for name in re.split(r" [|·] ", line)]
    assert drawn == wanted[: len(wanted)]
