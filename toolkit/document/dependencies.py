"""What a notebook says it needs: packages and a Python version, read as data.

Two forms, of which a notebook has one:

* a block of inline script metadata (PEP 723) in a code cell::

      # /// script
      # requires-python = ">=3.11"
      # dependencies = ["pandas>=2", "rapidfuzz"]
      # ///

* a cell with the tag ``dependencies``: a raw cell with one requirement (PEP 508) per line, or a
  code cell that is nothing but ``dependencies = ["pandas>=2"]``.

Addresses, local paths and installer options are refused: where packages come from is a matter of
the machine that locks them, not of the notebook.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from toolkit.document.cells import Cell
from toolkit.document.flaws import Flaw

__all__ = ["Dependencies", "Dependency", "declared_dependencies", "guarded_lines"]

TAG = "dependencies"
MAX_LINES = 500
_OPEN = "# /// script"
_CLOSE = "# ///"
_PLACE = re.compile(r"\s*\(at (?:line (\d+), column \d+|end of document)\)$")
_OWN = frozenset({"agent-toolkit", "toolkit"})
_FORM = 'write dependencies = ["name>=1"]: a list of requirements, each in quotes'
_REFUSALS = frozenset({"ImportError", "ModuleNotFoundError", "Exception", "BaseException"})


@dataclass(frozen=True, slots=True)
class Dependency:
    """One requirement.

    Attributes:
        name: The distribution's normal name (``scikit-learn``).
        text: The requirement in its normal form (``scikit-learn>=1.5``).
        cell, line: 1-based place.
    """

    name: str
    text: str
    cell: int
    line: int


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything that a notebook declares.

    Attributes:
        declared: Whether there is a declaration at all; an empty one is a declaration.
        requirements: The well-formed ones, in the notebook's order.
        requires_python: A version specifier such as ``>=3.11``; empty: any.
        flaws: What is wrong, each with cell and line.
    """

    declared: bool = False
    requirements: tuple[Dependency, ...] = ()
    requires_python: str = ""
    flaws: tuple[Flaw, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The requirements as an installer reads them."""
        return tuple(one.text for one in self.requirements)


def declared_dependencies(cells: Sequence[Cell]) -> Dependencies:
    """Read the declaration of a notebook; never raises, and executes nothing."""
    found = [reading for cell in cells if (reading := _read(cell)) is not None]
    if not found:
        return Dependencies()
    first, *others = found
    flaws = list(first.flaws)
    for other in others:
        message = f"cell {first.cell.number} declares the dependencies already"
        fix = "keep one declaration and delete the other"
        flaws.append(other.cell.flaw("several-dependencies", message, other.start, fix))
    requirements = tuple(first.requirements)
    return Dependencies(
        declared=True, requirements=requirements, requires_python=first.python, flaws=tuple(flaws)
    )


def guarded_lines(tree: ast.Module | None) -> set[int]:
    """Return the lines that a notebook can do without: in a ``try`` that expects a failed import."""
    lines: set[int] = set()
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Try) and any(map(_expects_failure, node.handlers)):
            for inner in node.body:
                lines.update(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    return lines


def _expects_failure(handler: ast.ExceptHandler) -> bool:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(k is None or (isinstance(k, ast.Name) and k.id in _REFUSALS) for k in kinds)


class _Reading:
    """The declaration of one cell, as it is read."""

    def __init__(self, cell: Cell, start: int) -> None:
        self.cell = cell
        self.start = start
        self.requirements: list[Dependency] = []
        self.python = ""
        self.flaws: list[Flaw] = []

    def fault(self, message: str, line: int, fix: str = "correct the declaration") -> None:
        self.flaws.append(self.cell.flaw("bad-dependencies", message, line, fix))

    def add(self, text: str, line: int) -> None:
        """Take one requirement, or say why not; its text may hold a secret and is not shown."""
        try:
            one = Requirement(text)
        except InvalidRequirement:
            self.fault("a requirement cannot be read", line, 'write it like "pandas>=2,<4"')
            return
        name = canonicalize_name(one.name)
        if one.url is not None:
            message = f"{name} is taken from an address"
            fix = "name a version; the index is configured where the promotion runs"
            self.fault(message, line, fix)
        elif name in _OWN:
            message = f"{name} is part of every environment"
            self.fault(message, line, "delete the requirement")
        else:
            self.requirements.append(Dependency(name, str(one), self.cell.number, line))


def _read(cell: Cell) -> _Reading | None:
    tagged = TAG in cell.tags
    lines = cell.source.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if cell.kind == "code" and _OPEN in lines:
        return _read_block(cell, lines)
    if not tagged:
        return None
    reading = _Reading(cell, 1)
    if len(lines) > MAX_LINES:
        reading.fault(f"the declaration has more than {MAX_LINES} lines", 1)
    elif cell.kind == "raw":
        _read_lines(reading, lines)
    elif cell.kind == "code":
        _read_assignment(reading)
    else:
        fix = "make it a raw cell with one requirement per line"
        reading.fault("a text cell cannot declare dependencies", 1, fix)
    return reading


def _read_lines(reading: _Reading, lines: list[str]) -> None:
    for number, line in enumerate(lines, 1):
        text = re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()
        if text.startswith("-"):
            fix = "delete the line; the index is configured where the promotion runs"
            reading.fault("an option of an installer is not a requirement", number, fix)
        elif text:
            reading.add(text, number)


def _read_assignment(reading: _Reading) -> None:
    tree = reading.cell.code.tree
    if tree is None:
        return  # does-not-parse tells it
    body = tree.body
    value = body[0].value if len(body) == 1 and isinstance(body[0], ast.Assign) else None
    named = (
        isinstance(body[0], ast.Assign)
        and [t.id for t in body[0].targets if isinstance(t, ast.Name)] == [TAG]
        if body
        else False
    )
    if not named or not isinstance(value, ast.List | ast.Tuple):
        line = body[0].lineno if body else 1
        reading.fault("the cell is more than a list of dependencies", line, _FORM)
        return
    for item in value.elts:
        if isinstance(item, ast.Constant) and isinstance(item.value, str):
            reading.add(item.value, item.lineno)
        else:
            reading.fault("a requirement is not plain text", item.lineno, _FORM)


def _read_block(cell: Cell, lines: list[str]) -> _Reading:
    """Read the block as PEP 723 has it: the last closing line of the run of comments ends it."""
    first = lines.index(_OPEN)
    reading = _Reading(cell, first + 1)
    last = None
    for index in range(first + 1, len(lines)):
        if lines[index] != "#" and not lines[index].startswith("# "):
            break
        if lines[index] == _CLOSE:
            last = index
    if last is None:
        reading.fault("the block is not closed", first + 1, f"end it with a line {_CLOSE!r}")
        return reading
    if last - first > MAX_LINES:
        reading.fault(f"the block has more than {MAX_LINES} lines", first + 1)
        return reading
    if _OPEN in lines[last + 1 :]:
        line = lines.index(_OPEN, last + 1) + 1
        flaw = cell.flaw("several-dependencies", "the cell has two blocks", line, "keep one")
        reading.flaws.append(flaw)
    content = [line[2:] for line in lines[first + 1 : last]]
    _read_toml(reading, content, first + 2)
    return reading


def _read_toml(reading: _Reading, content: list[str], start: int) -> None:
    try:
        body = tomllib.loads("\n".join(content))
    except tomllib.TOMLDecodeError as error:
        place = _PLACE.search(str(error))
        line = int(place[1]) if place and place[1] else len(content)
        reading.fault("the block is not TOML", start + max(line, 1) - 1, "see PEP 723")
        return
    except (RecursionError, ValueError):
        reading.fault("the block is not TOML that can be read", start, "see PEP 723")
        return
    _read_members(reading, body, content, start)


def _read_members(reading: _Reading, body: dict[str, Any], content: list[str], start: int) -> None:
    for name in body:
        if name not in {"dependencies", "requires-python", "tool"}:
            line = _line_of(content, name, start)
            message = "the block has a member that PEP 723 does not know"
            reading.fault(message, line, "use dependencies and requires-python")
    tools = body.get("tool")
    if isinstance(tools, dict) and "uv" in tools:
        # Its members choose where packages come from, which the lock must not follow silently.
        line = _line_of(content, "uv", start)
        message = "settings of an installer are not followed here"
        reading.fault(message, line, "delete tool.uv from the block")
    _read_python(reading, body.get("requires-python", ""), content, start)
    wanted = body.get("dependencies", [])
    if not isinstance(wanted, list):
        reading.fault("dependencies is not a list", _line_of(content, TAG, start), _FORM)
        return
    for text, line in _placed(wanted, content, start):
        if isinstance(text, str):
            reading.add(text, line)
        else:
            reading.fault("a requirement is not text", line, _FORM)


def _read_python(reading: _Reading, wanted: Any, content: list[str], start: int) -> None:
    line = _line_of(content, "requires-python", start)
    try:
        reading.python = str(SpecifierSet(wanted))
    except (InvalidSpecifier, TypeError, AttributeError):
        fix = 'write requires-python = ">=3.11"'
        reading.fault("requires-python is not a version specifier", line, fix)


def _placed(wanted: list[Any], content: list[str], start: int) -> Iterator[tuple[Any, int]]:
    """Yield each item with its line: where its text stands, after the item before it."""
    at = _line_of(content, TAG, start) - start
    for item in wanted:
        if isinstance(item, str):
            later = (i for i in range(at, len(content)) if item and item in content[i])
            at = next(later, at)
        yield item, start + at


def _line_of(content: list[str], word: str, start: int) -> int:
    places = (start + i for i, line in enumerate(content) if word in line)
    return next(places, start)
