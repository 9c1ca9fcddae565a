from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from toolkit.document import Notebook

Build = Callable[..., Notebook]


def make_document(*cells: str | dict[str, Any], **top: Any) -> dict[str, Any]:
    """A valid nbformat 4.5 document; a text is a code cell, a dict replaces members of one."""
    made = []
    for index, given in enumerate(cells):
        cell = {"cell_type": "code", "id": f"c{index + 1}", "metadata": {}, "source": ""}
        cell |= {"source": given} if isinstance(given, str) else given
        if cell["cell_type"] == "code":
            cell = {"outputs": [], "execution_count": None, **cell}
        made.append(cell)
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    document = {
        "cells": made,
        "metadata": {"kernelspec": spec},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return {**document, **top}


@pytest.fixture
def document() -> Callable[..., dict[str, Any]]:
    return make_document


@pytest.fixture
def notebook() -> Build:
    def build(*cells: Any, **top: Any) -> Notebook:
        return Notebook.parse(json.dumps(make_document(*cells, **top)).encode())

    return build


@pytest.fixture
def parameters_cell(notebook: Build) -> Callable[[str], Notebook]:
    def build(source: str) -> Notebook:
        return notebook({"source": source, "metadata": {"tags": ["parameters"]}})

    return build
