from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from toolkit.promotion.check import CheckCatalog, Report, check_notebook
from toolkit.values import Effect

FIXTURES = Path(__file__).parents[1] / "fixtures" / "broken"
CATALOG = CheckCatalog(
    tools={"read_row": Effect.READ, "write_row": Effect.WRITE, "slow_row": Effect.READ},
    timed=frozenset({"slow_row"}),
    routes=frozenset({"default", "small"}),
    sources=frozenset({"orders"}),
    hosts=frozenset({"crm.known.io"}),
)
# What every notebook under test has, so that only what a test adds is found.
FRAME = [
    {"source": "import toolkit"},
    {"source": "limit: int = 20", "metadata": {"tags": ["parameters"]}},
]


def make_notebook(*cells: str | dict[str, Any], frame: bool = True, **top: Any) -> dict[str, Any]:
    """A notebook whose tested cells begin at number 3; ``frame=False`` leaves them alone."""
    given = [{"source": c} if isinstance(c, str) else c for c in cells]
    if frame:
        given = [*FRAME, *given, {"source": "toolkit.result(rows=limit)"}]
    made = []
    for index, cell in enumerate(given):
        full = {"cell_type": "code", "id": f"c{index + 1}", "metadata": {}, **cell}
        if full["cell_type"] == "code":
            full = {"outputs": [], "execution_count": None, **full}
        made.append(full)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": spec}
    return {"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5, **top}


@pytest.fixture
def catalog() -> CheckCatalog:
    return CATALOG


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., Report]:
    def run(*cells: Any, catalog: CheckCatalog = CATALOG, **top: Any) -> Report:
        path = tmp_path / "notebook.ipynb"
        path.write_text(json.dumps(make_notebook(*cells, **top)), "utf-8")
        return check_notebook(path, catalog)

    return run


@pytest.fixture
def places(check: Callable[..., Report]) -> Callable[..., list[tuple[str, int | None, int | None]]]:
    def run(*cells: Any, **top: Any) -> list[tuple[str, int | None, int | None]]:
        return [(f.rule, f.cell, f.line) for f in check(*cells, **top).findings]

    return run
