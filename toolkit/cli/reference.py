"""Documentation made from the code: commands, settings and the rules of ``toolkit check``.

``python -m toolkit.cli.reference docs/reference.md`` writes that file and ``checks.md`` beside it.
Both are committed; ``tests/docs`` compares them with what is written here now.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from toolkit.cli.main import app
from toolkit.promotion.check import RULES, Severity
from toolkit.settings import FILE_NAME, Settings
from toolkit.values import Cause, RunState

__all__ = ["checks_text", "commands", "main", "reference_text", "setting_texts"]

_MADE = "<!-- Made by `make reference`; do not edit. -->"
_LATER = "do what the finding says"
# How the rows of an "Attributes:" section begin: one name, or several with commas, and a colon.
_ATTRIBUTE = re.compile(r"^((?:\w+)(?:, \w+)*): (.*)$")


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the words and the Typer command of every command, groups before their members."""
    yield from _walk((), typer.main.get_command(app))


def _walk(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    if words:
        yield words, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _walk((*words, name), child)


def reference_text() -> str:
    """Return ``reference.md``."""
    intro = (
        "Every command takes `--help`. Commands with `--json` then print one JSON document on"
        " standard output, errors included; progress and warnings go to standard error."
    )
    parts = [
        _MADE,
        "# Reference of the command line",
        intro,
        _contents(),
        "## Commands",
        *(_command_part(words, command) for words, command in commands()),
        _settings_part(),
        _states_part(),
    ]
    return "\n\n".join(parts) + "\n"


def _contents() -> str:
    lines = []
    for words, command in commands():
        if not getattr(command, "commands", None) or _runs_alone(command):
            name = " ".join(("toolkit", *words))
            lines.append(f"- [`{name}`](#{name.replace(' ', '-')}): {_summary(command)}")
    lines += ["- [Settings](#settings)", "- [Run states and causes](#run-states-and-causes)"]
    return "\n".join(lines)


def _summary(command: Any) -> str:
    return inspect.cleandoc(command.help or "").partition("\n\n")[0].replace("\n", " ")


def _command_part(words: tuple[str, ...], command: Any) -> str:
    name = " ".join(("toolkit", *words))
    context = typer.Context(command, info_name=name)
    pieces = (
        piece.replace("{", "").replace("}", "") for piece in command.collect_usage_pieces(context)
    )
    usage = " ".join((name, *pieces))
    described = inspect.cleandoc(command.help or "")
    parts = [f"### {name}", described]
    if getattr(command, "commands", None):
        inside = ", ".join(f"`{child}`" for child in command.commands)
        parts.append(f"Commands: {inside}.")
        if not _runs_alone(command):
            return "\n\n".join(parts)
    parts.append(f"```text\n{usage}\n```")
    records = [param.get_help_record(context) for param in command.params]
    rows = [record for record in records if record is not None]
    if rows:
        lines = ["| argument or option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(left)}` | {_cell(right) or '–'} |" for left, right in rows]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _runs_alone(command: Any) -> bool:
    """Whether a group is a command too."""
    return bool(getattr(command, "invoke_without_command", False))


def _cell(text: str) -> str:
    """Return text for a cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")


def setting_texts() -> dict[str, str]:
    """Return what the docstring of :class:`Settings` says about each setting.

    Raises:
        ValueError: A setting has no description, or a description has no setting.
    """
    section = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")[2]
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        match = _ATTRIBUTE.match(line.removeprefix("    "))
        if match and not line.startswith("        "):
            names = match[1].split(", ")
            found.update(dict.fromkeys(names, match[2]))
        else:
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    if set(found) != set(Settings.model_fields):
        odd = ", ".join(sorted(set(found) ^ set(Settings.model_fields)))
        msg = f"the docstring of Settings and its fields differ: {odd}"
        raise ValueError(msg)
    return {name: text.strip().replace("``", "`") for name, text in found.items()}


def _settings_part() -> str:
    texts = setting_texts()
    intro = (
        f"They stand in `{FILE_NAME}` at the root of a workspace. An environment variable wins over"
        " the file. Secrets are never settings: a provider in `registry/models.yaml` names the"
        " environment variable that holds its key."
    )
    lines = [
        "## Settings",
        "",
        intro,
        "",
        "| setting | variable | default | meaning |",
        "|---|---|---|---|",
    ]
    for name, field in Settings.model_fields.items():
        default = f"`{field.default}`" if field.default not in ("", None) else "–"
        lines.append(f"| `{name}` | `TOOLKIT_{name.upper()}` | {default} | {_cell(texts[name])} |")
    return "\n".join(lines)


def _states_part() -> str:
    states = ", ".join(f"`{state}`" for state in RunState)
    ends = ", ".join(f"`{state}`" for state in RunState if state.terminal)
    causes = ", ".join(f"`{cause}`" for cause in Cause)
    return (
        "## Run states and causes\n\n"
        f"A run is in one of these states: {states}.\n\n"
        f"It ends in exactly one of these: {ends}. An ending never becomes another one; a run that "
        "the world ended may go on under its id ([endings](endings.md)).\n\n"
        f"A cause says why: {causes}."
    )


def checks_text() -> str:
    """Return ``checks.md``."""
    errors = sum(1 for rule in RULES if rule.severity is Severity.ERROR)
    intro = (
        "`toolkit check` reads notebooks and runs nothing. It finds what would stop or betray a job"
        " before it runs. It is advice for honest authors, not a barrier against others."
    )
    count = (
        f"There are {len(RULES)} rules. {errors} of them are errors, which stop a promotion; the"
        " others are warnings. If a rule itself fails on a notebook, the finding `check-failed` is"
        " an error too."
    )
    lines = [
        _MADE,
        "",
        "# Rules of `toolkit check`",
        "",
        intro,
        "",
        count,
        "",
        "| rule | severity |",
        "|---|---|",
        *(f"| [`{rule.id}`](#{rule.id}) | {rule.severity} |" for rule in RULES),
    ]
    for rule in RULES:
        fix = "each finding says it" if rule.fix == _LATER else rule.fix
        lines += [
            "",
            f"## {rule.id}",
            "",
            f"Severity: {rule.severity}.",
            "",
            f"Why: {_prose(rule.why)}.",
            "",
            f"Fix: {_prose(fix)}.",
        ]
    return "\n".join(lines) + "\n"


def _prose(text: str) -> str:
    """Return text with its Markdown characters inert outside of backticks."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") else re.sub(r"([<>*\[\]])", r"\\\1", piece)
        for piece in pieces
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files and return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: python -m toolkit.cli.reference docs/reference.md", file=sys.stderr)
        return 2
    path = Path(arguments[0])
    path.write_text(reference_text(), "utf-8")
    path.with_name("checks.md").write_text(checks_text(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
