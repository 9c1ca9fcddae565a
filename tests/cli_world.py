"""A person at the command line: commands run, notebooks written, versions sealed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat

from toolkit.app.trusting import open_registry
from toolkit.cli import main
from toolkit.document import Notebook
from toolkit.settings import Workspace

Cell = str | tuple[str, str]


def notebook_text(*cells: Cell, parameters: str | None = "limit: int = 2") -> str:
    """Return a notebook: a parameters cell, then these cells (a pair is source and tag)."""
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {
        "name": "python3",
        "display_name": "Python 3",
        "language": "python",
    }
    given: list[Cell] = list(cells)
    if parameters is not None:
        given = ["import toolkit", (parameters, "parameters"), *given]
    for number, cell in enumerate(given):
        source, tags = (cell, []) if isinstance(cell, str) else (cell[0], [cell[1]])
        made = nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {})
        made["id"] = f"cell-{number}"
        node.cells.append(made)
    return str(nbformat.writes(node))


AGENT = """@toolkit.agent
def answer(question: str) -> str:
    \"\"\"One question, one answer.\"\"\"
    return toolkit.model(question).text"""

GOOD = (AGENT, "texts = [answer(f'question {n}') for n in range(limit)]", "toolkit.result(count=len(texts), texts=texts)")  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on standard output, which holds nothing else."""
        assert self.out.endswith("\n"), (self.out, self.err)
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def told(self) -> str:
        """Everything that the person sees."""
        return self.out + self.err


def toolkit(*arguments: object) -> Done:
    """Run one command in this process: the console script's own entry."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    done = Done(code, out.getvalue(), err.getvalue())
    assert "Traceback (most recent call last)" not in done.told, done.told
    return done


def start(arguments: Sequence[object], cwd: Path) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "toolkit", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"},
    )


def write_notebook(workspace: Workspace, name: str, *cells: Cell, **options: Any) -> Path:
    """Write a notebook into the workspace and return its relative path."""
    path = workspace.root / "notebooks" / f"{name}.ipynb"
    path.write_text(notebook_text(*cells, **options), "utf-8")
    return path.relative_to(workspace.root)


def seal(workspace: Workspace, job: str, *cells: Cell, alias: str | None = "production") -> int:
    """Seal a version as a promotion would, without its trials."""
    notebook = Notebook.parse(notebook_text(*cells).encode())
    registry = open_registry(workspace)
    files = {"notebook.ipynb": notebook.normalised(), "evidence.json": b'{"stages": []}'}
    facts = {"by": "ana", "parameters": notebook.schema, "results": list(notebook.results)}
    sealed = registry.seal(job, files, facts)
    if alias is not None:
        registry.set_alias(job, alias, sealed.version, by="ana")
    return sealed.version
