"""Credentials in sources, outputs and metadata; reported by kind and place, never printed.

What a credential looks like is one thing in the whole product: the gateway's own detector says it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from toolkit.document import Cell
from toolkit.privacy import Category, Detector, is_secret_name, is_secret_value
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_DETECTOR = Detector()
# Prose and outputs speak of passwords without giving any: a word behind a telling name is no find.
_NAMED = ("password", "secret value")
_SURE = 0.8
_BINARY = ("image/", "audio/", "video/", "font/", "application/pdf", "application/vnd.")


def _in_sources(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.cells:
        found: dict[int, str] = {}
        for kind, offset in _secrets(cell.source, code=cell.kind == "code"):
            found.setdefault(cell.source.count("\n", 0, offset) + 1, kind)
        for line, kind in sorted(found.items()):
            yield Hit(f"the source holds what looks like a secret ({kind})", cell, line)


def _secrets(text: str, *, code: bool = False) -> Iterator[tuple[str, int]]:
    """Yield (kind, offset) of what looks like a credential."""
    for found in _DETECTOR.find(text):
        vague = not code and found.kind in _NAMED and found.score < _SURE
        if found.category is Category.SECRET and not vague:
            yield found.kind, found.start


def _in_outputs(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.cells:
        kinds = {kind for text in _output_texts(cell) for kind, _ in _secrets(text)}
        for kind in sorted(kinds):
            yield Hit(f"an output holds what looks like a secret ({kind})", cell)


def _output_texts(cell: Cell) -> Iterator[str]:
    for output in cell.outputs:
        yield from _strings(output.get("text"))
        yield from _strings(output.get("traceback"))
        yield from _strings(output.get("evalue"))
        for mime, data in output.get("data", {}).items():
            if mime == "image/svg+xml" or not mime.startswith(_BINARY):
                yield from _strings(data)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and all(isinstance(item, str) for item in value):
        yield "".join(value)
    elif value is not None:
        yield json.dumps(value, ensure_ascii=False)


def _in_metadata(subject: Subject) -> Iterator[Hit]:
    notebook = subject.notebook
    for kind in sorted(_metadata_kinds(notebook.metadata)):
        yield Hit(f"the notebook's metadata holds what looks like a secret ({kind})")
    for cell in notebook.cells:
        for kind in sorted(_metadata_kinds(cell.metadata)):
            yield Hit(f"its metadata holds what looks like a secret ({kind})", cell)


def _metadata_kinds(metadata: Mapping[str, Any]) -> set[str]:
    if not metadata:
        return set()
    kinds: set[str] = set()
    stack: list[Any] = [metadata]
    while stack:
        node = stack.pop()
        if isinstance(node, list):
            stack.extend(node)
        elif isinstance(node, str):
            kinds |= {kind for kind, _ in _secrets(node)}
        elif isinstance(node, Mapping):
            stack.extend(node.values())
            for name, value in node.items():
                named = is_secret_name(name) if isinstance(value, str) else None
                if named and is_secret_value(named, value):
                    kinds.add("password" if named == "password" else "secret value")
    return kinds


RULES = (
    Rule(
        "secret-in-source",
        Severity.ERROR,
        "a version is readable for everybody who may read the registry, for ever",
        "revoke the secret, delete it here, and put it where the gateway reads it: the environment"
        " variable that registry/models.yaml names, or a tool that holds it",
        _in_sources,
    ),
    Rule(
        "secret-in-output",
        Severity.ERROR,
        "the saved notebook is shared together with its outputs",
        "revoke the secret, stop printing it, and clear the output",
        _in_outputs,
    ),
    Rule(
        "secret-in-metadata",
        Severity.ERROR,
        "nobody looks into metadata, and it is shared with the notebook",
        "revoke the secret; then edit the notebook's JSON (Settings > Advanced Tools > Metadata)",
        _in_metadata,
    ),
)
