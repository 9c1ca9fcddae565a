"""Secrets and personal data anywhere in a notebook: one pass of the detector, used by many rules.

What a credential or a person's number looks like is one thing in the whole product: the gateway's
own detector says it.  Only kinds and places leave this module.
"""

from __future__ import annotations

import ast
import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from toolkit.document import Cell, Notebook
from toolkit.privacy import Category, Detector, Finding, is_secret_name, is_secret_value

__all__ = ["Part", "Spot", "masked", "spots"]

_DETECTOR = Detector()
# Prose and outputs speak of passwords without giving any: a word behind a telling name is no find.
_NAMED = ("password", "secret value")
_SURE = 0.8
_BINARY = ("image/", "audio/", "video/", "font/", "application/pdf", "application/vnd.")
_SVG = "image/svg+xml"


class Part(StrEnum):
    """Where in a notebook something stands."""

    SOURCE = "source"
    OUTPUT = "output"
    METADATA = "metadata"
    ATTACHMENT = "attachment"


@dataclass(frozen=True, slots=True)
class Spot:
    """One kind of secret or personal data in one place; never the thing itself.

    Attributes:
        part: Where it is.
        category: Secret, or about a person.
        kind: ``GitHub token``, ``e-mail address`` …
        cell: The cell; ``None`` for the notebook's own metadata.
        line: 1-based line of a source.
    """

    part: Part
    category: Category
    kind: str
    cell: Cell | None = None
    line: int | None = None


def spots(notebook: Notebook) -> tuple[Spot, ...]:
    """Return what the detector finds, each kind once per place."""
    found = [Spot(Part.METADATA, *one) for one in _in_metadata(notebook.metadata)]
    for cell in notebook.cells:
        found += _in_source(notebook, cell)
        for part, texts in (
            (Part.OUTPUT, _output_texts(cell)),
            (Part.ATTACHMENT, _attachment_texts(cell)),
        ):
            kinds = {(f.category, f.kind) for text in texts for f in _find(text, code=False)}
            found += [Spot(part, category, kind, cell) for category, kind in kinds]
        found += [Spot(Part.METADATA, *one, cell) for one in _in_metadata(cell.metadata)]
    return tuple(sorted(found, key=lambda spot: (spot.line or 0, spot.kind)))


def masked(text: str) -> str:
    """Return one line of source with everything that the detector finds in it cut out."""
    for found in reversed(_DETECTOR.find(text)):
        text = f"{text[: found.start]}[{found.kind}]{text[found.end :]}"
    return text


def _find(text: str, *, code: bool) -> Iterator[Finding]:
    for found in _DETECTOR.find(text):
        vague = not code and found.kind in _NAMED and found.score < _SURE
        if not vague:
            yield found


def _in_source(notebook: Notebook, cell: Cell) -> Iterator[Spot]:
    lines: dict[tuple[Category, int], str] = {}
    products: set[int] | None = None
    for found in _find(cell.source, code=cell.kind == "code"):
        line = cell.source.count("\n", 0, found.start) + 1
        if found.category is Category.PII and cell.kind == "code":
            # ``a@b.values`` multiplies matrices.
            products = _products(notebook, cell) if products is None else products
            if line in products:
                continue
        lines.setdefault((found.category, line), found.kind)
    for (category, line), kind in lines.items():
        yield Spot(Part.SOURCE, category, kind, cell, line)


def _products(notebook: Notebook, cell: Cell) -> set[int]:
    return {
        line
        for node in notebook.names.nodes(cell)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    }


def _output_texts(cell: Cell) -> Iterator[str]:
    for output in cell.outputs:
        yield from _strings(output.get("text"))
        yield from _strings(output.get("traceback"))
        yield from _strings(output.get("evalue"))
        for mime, data in output.get("data", {}).items():
            if mime == _SVG or not mime.startswith(_BINARY):
                yield from _strings(data)


def _attachment_texts(cell: Cell) -> Iterator[str]:
    """Texts of attachments, which are base64; pictures are left out: nobody reads their pixels."""
    for bundle in cell.attachments.values():
        for mime, data in bundle.items() if isinstance(bundle, Mapping) else ():
            if mime != _SVG and mime.startswith(_BINARY):
                continue
            for text in _strings(data):
                yield _decoded(text)


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):  # not base64, or not text: as it stands in the file
        return text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield "".join(value)
    elif value is not None:
        yield json.dumps(value, ensure_ascii=False)


def _in_metadata(metadata: Mapping[str, Any]) -> set[tuple[Category, str]]:
    if not metadata:
        return set()
    kinds: set[tuple[Category, str]] = set()
    stack: list[Any] = [metadata]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, str):
            kinds |= {(found.category, found.kind) for found in _find(node, code=False)}
        elif isinstance(node, Mapping):
            stack.extend(node.values())
            for name, value in node.items():
                named = is_secret_name(name) if isinstance(value, str) else None
                if named and is_secret_value(named, value):
                    kind = "password" if named == "password" else "secret value"
                    kinds.add((Category.SECRET, kind))
    return kinds
