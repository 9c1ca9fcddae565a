"""A notebook as data: cells, parameters, results, normal form, digest."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from toolkit.document import uses
from toolkit.document.cells import Cell
from toolkit.document.dependencies import Dependencies, declared_dependencies
from toolkit.document.flaws import Flaw
from toolkit.document.names import Names
from toolkit.document.parameters import (
    Declared,
    Parameter,
    declared_parameters,
    parameter_schema,
)
from toolkit.document.reading import MAX_BYTES, load_document, read_bytes
from toolkit.errors import InvalidFile
from toolkit.values import Digest, digest_bytes

__all__ = ["Examination", "Notebook", "examine", "examine_bytes"]

_RESAVE = "open the notebook in JupyterLab and save it again"


@dataclass(frozen=True)
class Notebook:
    """An ``.ipynb`` that was read and validated.

    Attributes:
        path: Where it came from, for messages.
        cells: All cells, in order.
        language: The kernel's language in lower case (``python``); ``None`` when nothing says it.
        kernel: Name of the kernel specification; ``None`` when there is none.
        metadata: The notebook's metadata as it is in the file.
        remarks: What was repaired on reading (missing or duplicate cell ids …).
        size: Bytes of the file.
    """

    path: str
    cells: tuple[Cell, ...]
    language: str | None = None
    kernel: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[Flaw, ...] = ()
    size: int = 0

    @classmethod
    def read(cls, path: Path, *, max_bytes: int = MAX_BYTES) -> Notebook:
        """Read a file.

        Raises:
            InvalidFile: Too large, not UTF-8, not JSON, twin keys, an old format, or not valid
                nbformat; all faults at once, each with its place.
            NotFound: There is no such file.
        """
        return examine(path, max_bytes=max_bytes).require()

    @classmethod
    def parse(
        cls, data: bytes, where: str = "notebook.ipynb", *, max_bytes: int = MAX_BYTES
    ) -> Notebook:
        """Read bytes that are already in memory.

        Args:
            data: The file's bytes.
            where: Its name for messages.
            max_bytes: See :data:`toolkit.document.MAX_BYTES`.

        Raises:
            InvalidFile: See :meth:`read`.
        """
        return examine_bytes(data, where, max_bytes=max_bytes).require()

    @cached_property
    def names(self) -> Names:
        """What dotted names mean in this notebook."""
        return Names(self.code_cells)

    @property
    def code_cells(self) -> tuple[Cell, ...]:
        """The cells with code, if the language is Python or unknown."""
        if self.language not in (None, "python"):
            return ()
        return tuple(cell for cell in self.cells if cell.kind == "code")

    @cached_property
    def declared(self) -> Declared:
        """Parameters together with what is wrong with them."""
        return declared_parameters(self.code_cells, self.names)

    @cached_property
    def dependencies(self) -> Dependencies:
        """Packages that the notebook says it needs, with what is wrong with the declaration."""
        python = self.language in (None, "python")
        return declared_dependencies(self.cells) if python else Dependencies()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The well-formed parameters."""
        return self.declared.parameters

    @property
    def schema(self) -> dict[str, Any]:
        """JSON Schema (draft 2020-12) of the parameters."""
        return parameter_schema(self.parameters)

    @cached_property
    def result_uses(self) -> tuple[uses.ResultUse, ...]:
        """Every keyword of every ``toolkit.result(…)``."""
        return uses.results(self.code_cells, self.names)

    @property
    def results(self) -> tuple[str, ...]:
        """Names of the results that the notebook declares, each once, in order."""
        return tuple(dict.fromkeys(use.name for use in self.result_uses if use.name))

    @cached_property
    def definitions(self) -> tuple[uses.Definition, ...]:
        """Tools and agents that the notebook defines."""
        return uses.definitions(self.code_cells, self.names)

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that it defines."""
        return tuple(dict.fromkeys(d.name for d in self.definitions if d.kind == "tool"))

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents that it defines."""
        return tuple(dict.fromkeys(d.name for d in self.definitions if d.kind == "agent"))

    @cached_property
    def route_uses(self) -> tuple[uses.RouteUse, ...]:
        """Every place that names a model route."""
        return uses.routes(self.code_cells, self.names)

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of the model routes, each once."""
        return tuple(dict.fromkeys(use.name for use in self.route_uses))

    def normalised(self) -> bytes:
        """Return the notebook without anything that running or viewing it changes.

        Outputs, counts, widget state and all metadata but tags and language are gone; missing or
        duplicate ids are filled in.  The bytes are a valid nbformat 4.5 file, and normalising
        them again gives the same bytes.
        """
        document = {
            "cells": [_normal_cell(cell) for cell in self.cells],
            "metadata": self._normal_metadata(),
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        text = json.dumps(document, ensure_ascii=False, indent=1, sort_keys=True)
        return f"{text}\n".encode()

    @cached_property
    def digest(self) -> Digest:
        """Digest of :meth:`normalised`."""
        return digest_bytes(self.normalised())

    def _normal_metadata(self) -> dict[str, Any]:
        if self.language is None and self.kernel is None:
            return {}
        # Kernel names differ between machines; the runner chooses the kernel by language.
        python = self.language == "python"
        name = "python3" if python else (self.kernel or str(self.language))
        spec = {"name": name, "display_name": "Python 3" if python else name}
        if self.language is None:
            return {"kernelspec": spec}
        spec["language"] = self.language
        return {"kernelspec": spec, "language_info": {"name": self.language}}


@dataclass(frozen=True)
class Examination:
    """What reading a file gave: a notebook, or the reasons why there is none.

    Attributes:
        path: The file.
        notebook: ``None`` if there are flaws.
        flaws: Everything that is wrong with the file.
    """

    path: str
    notebook: Notebook | None
    flaws: tuple[Flaw, ...] = ()

    def require(self) -> Notebook:
        """Return the notebook.

        Raises:
            InvalidFile: There is none.
        """
        if self.notebook is None:
            raise InvalidFile.of(self.path, [flaw.fault() for flaw in self.flaws])
        return self.notebook


def examine(path: Path, *, max_bytes: int = MAX_BYTES) -> Examination:
    """Read a file and say what is wrong with it.

    Raises:
        NotFound: There is no such file.
    """
    data = read_bytes(path, max_bytes)
    if isinstance(data, Flaw):
        return Examination(str(path), None, (data,))
    return examine_bytes(data, str(path), max_bytes=max_bytes)


def examine_bytes(data: bytes, path: str, *, max_bytes: int = MAX_BYTES) -> Examination:
    """Read bytes and say what is wrong with them; never raises.

    Args:
        data: The file's bytes.
        path: Its name for messages.
        max_bytes: See :data:`toolkit.document.MAX_BYTES`.
    """
    document, flaws = load_document(data, max_bytes)
    if document is None:
        return Examination(path, None, tuple(flaws))
    return Examination(path, _build(document, path, len(data)))


def _build(document: dict[str, Any], path: str, size: int) -> Notebook:
    metadata = document["metadata"]
    spec = metadata.get("kernelspec", {})
    language = _language(spec, metadata.get("language_info", {}))
    cells, remarks = _cells(document["cells"])
    if not spec:
        fix = "choose a kernel in JupyterLab (top right) and save"
        message = "it names no kernel"
        remarks.append(Flaw("no-kernelspec", message, fix, "metadata.kernelspec"))
    kernel = spec.get("name") or None
    return Notebook(path, cells, language, kernel, metadata, tuple(remarks), size)


def _language(spec: Mapping[str, Any], info: Mapping[str, Any]) -> str | None:
    for named in (spec.get("language"), info.get("name")):
        if isinstance(named, str) and named.strip():
            # ``ipython`` is what old kernels call themselves.
            return {"ipython": "python"}.get(named.strip().lower(), named.strip().lower())
    name = str(spec.get("name", "")).lower()
    return "python" if re.match(r"(conda-.*|i?python|pyspark|.*-py$)", name) else None


def _cells(raw: list[dict[str, Any]]) -> tuple[tuple[Cell, ...], list[Flaw]]:
    counts = Counter(cell.get("id") for cell in raw)
    taken = {str(cell_id) for cell_id in counts if cell_id is not None}
    seen: set[str] = set()
    cells, remarks = [], []
    for index, cell in enumerate(raw):
        cell_id = cell.get("id")
        source = _text(cell["source"])
        repaired = cell_id if cell_id and cell_id not in seen and _good_id(cell_id) else None
        if repaired is None:
            repaired = _made_id(index, cell["cell_type"], source, taken)
            if cell_id:
                what = "the id of an earlier cell" if cell_id in seen else "a wrong id"
                where = f"cell {index + 1}"
                message = f"{where} has {what}"
                flaw = Flaw("duplicate-cell-id", message, _RESAVE, where, index + 1, repaired)
                remarks.append(flaw)
        seen.add(repaired)
        cells.append(_cell(index, repaired, source, cell))
    missing = sum(not cell.get("id") for cell in raw)
    if missing:  # as in every notebook of format 4.4 and older: one remark for all
        count = "1 cell has" if missing == 1 else f"{missing} cells have"
        remarks.append(Flaw("missing-cell-id", f"{count} no id", _RESAVE))
    return tuple(cells), remarks


def _good_id(cell_id: str) -> bool:
    return re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell_id, re.ASCII) is not None


def _made_id(index: int, kind: str, source: str, taken: set[str]) -> str:
    salt = 0
    while True:
        text = f"{index}\0{kind}\0{source}\0{salt}"
        made = hashlib.sha256(text.encode()).hexdigest()[:12]
        if made not in taken:
            taken.add(made)
            return made
        salt += 1


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def _cell(index: int, cell_id: str, source: str, raw: dict[str, Any]) -> Cell:
    return Cell(
        index=index,
        id=cell_id,
        kind=raw["cell_type"],
        source=source,
        tags=tuple(raw["metadata"].get("tags", ())),
        outputs=tuple(raw.get("outputs", ())),
        execution_count=raw.get("execution_count"),
        metadata=raw["metadata"],
        attachments=raw.get("attachments", {}),
    )


def _normal_cell(cell: Cell) -> dict[str, Any]:
    made: dict[str, Any] = {
        "cell_type": cell.kind,
        "id": cell.id,
        "metadata": {"tags": sorted(cell.tags)} if cell.tags else {},
        "source": cell.source.splitlines(keepends=True),
    }
    if cell.kind == "code":
        made |= {"execution_count": None, "outputs": []}
    elif cell.attachments:
        made["attachments"] = cell.attachments
    return made
