"""A scorer that is a Python file of the set: read, checked without running it, and digested.

``def score(answer, label, inputs)`` returns yes or no (a number, where the scorer says ``better: more``
or ``less``), ``None`` for a case that it does not score, or ``{"score": …, "reason": "one sentence"}``.
What was read and digested is what runs: the process is given the text, not the path.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import Fault, NotFound
from toolkit.evaluation.files import read_text
from toolkit.values import digest_bytes

__all__ = ["PROGRAM_S", "Program", "read_program"]

PROGRAM_S = 10.0
"""Seconds that a file may take for one answer unless the set says otherwise."""
_ARGUMENTS = 3
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """A function of a Python file beside ``set.yaml``.

    Attributes:
        file: Its name in the set's folder.
        function: The function's name.
        source: The file's text.
        timeout_s: Seconds that one answer may take.
        memory_bytes: Memory of its process.
    """

    file: str
    function: str
    source: str = field(repr=False)
    timeout_s: float = PROGRAM_S
    memory_bytes: int = 512 * _MIB

    def to_json(self) -> dict[str, Any]:
        """Return what of it decides a result, as JSON values; the text counts by its digest."""
        return {
            "file": self.file,
            "digest": digest_bytes(self.source.encode()),
            "function": self.function,
            "timeout_s": self.timeout_s,
            "memory_bytes": self.memory_bytes,
        }


def read_program(folder: Path, file: str, function: str, faults: list[Fault]) -> str | None:
    """Return the text of a scorer's file, or ``None`` after adding every fault that it has.

    Nothing of it runs.
    """
    path = folder / file
    if path.resolve().parent != folder.resolve():
        faults.append(Fault(file, "leads out of the set's folder", "copy the file into it"))
        return None
    try:
        text = read_text(path, faults)
    except NotFound:
        step = f"write {file} with def {function}(answer, label, inputs)"
        faults.append(Fault(file, "is missing in the set's folder", step))
        return None
    found = [] if text is None else list(_faults(text, file, function))
    faults.extend(found)
    return None if found else text


def _faults(text: str, file: str, function: str) -> Iterator[Fault]:
    try:
        tree = ast.parse(text, file)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        said = getattr(error, "msg", None) or str(error)
        yield Fault(f"{file}:{line}" if line else file, f"does not parse: {said}")
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            step = "put what it needs into the one file"
            yield Fault(
                f"{file}:{node.lineno}", "imports a file beside it, which is not there", step
            )
    yield from _function_faults(tree, file, function)


def _function_faults(tree: ast.Module, file: str, function: str) -> Iterator[Fault]:
    made = [n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    named = [node for node in made if node.name == function]
    step = f"def {function}(answer, label, inputs)"
    if not named:
        known = ", ".join(node.name for node in made) or "none"
        yield Fault(file, f"has no function {function!r} at its top level (it has {known})", step)
        return
    node = named[-1]
    place = f"{file}:{node.lineno}"
    if isinstance(node, ast.AsyncFunctionDef):
        yield Fault(place, f"{function} is async, which a scorer cannot be", step)
    if not _takes_three(node.args):
        yield Fault(place, f"{function} cannot be called with answer, label and inputs", step)
    inner = (n for n in ast.walk(node) if isinstance(n, ast.Yield | ast.YieldFrom))
    if next(inner, None) is not None:
        yield Fault(place, f"{function} yields, so that it would answer with a generator", step)


def _takes_three(given: ast.arguments) -> bool:
    places = len(given.posonlyargs) + len(given.args)
    needed = places - len(given.defaults)
    required = any(default is None for default in given.kw_defaults)
    enough = places >= _ARGUMENTS or given.vararg is not None
    return enough and needed <= _ARGUMENTS and not required
