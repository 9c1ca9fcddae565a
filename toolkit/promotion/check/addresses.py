"""Addresses written into code: read directly, or of hosts that nothing in the registry names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from toolkit.document import Cell
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_ADDRESS = re.compile(
    r"\b(?:https?|wss?|ftps?|s3a?|gs|gcs|abfss?|az|postgres(?:ql)?(?:\+\w+)?|mysql(?:\+\w+)?"
    r"|mongodb(?:\+srv)?|rediss?|amqps?)://(?:[^\s/@'\"<>]{0,200}@)?(\[[0-9A-Fa-f:.]{2,45}\]|[\w.-]{1,253})",
    re.ASCII,
)
_START = re.compile(r"(?:https?|ftps?|s3a?|gs|gcs|abfss?|az)://", re.IGNORECASE)
# Names that identify something and lead nowhere, and names that RFC 2606 and RFC 6761 keep free.
_IDENTIFIERS = frozenset(
    ["www.w3.org", "json-schema.org", "schema.org", "purl.org", "xmlns.com", "spdx.org"]
)
_RESERVED = re.compile(r"(?:.*\.)?(?:example(?:\.(?:com|net|org))?|invalid|test)", re.IGNORECASE)
_READERS = re.compile(
    r"(?:pandas|polars|dask\.dataframe|dask\.bag|modin\.pandas|geopandas|xarray|fsspec|smart_open"
    r"|imageio(?:\.v\d)?|skimage\.io|numpy|pyarrow(?:\.\w+)*|torch\.hub|cv2|matplotlib\.pyplot)"
    r"\.(?:read\w*|scan_\w+|open\w*|loadtxt|genfromtxt|imread|load\w*|download\w*)"
)


def _texts(subject: Subject, cell: Cell) -> Iterator[tuple[ast.AST, str, bool]]:
    """Yield text literals that are not documentation, with whether more text follows."""
    skipped: set[int] = set()
    for node in subject.names.nodes(cell):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        elif isinstance(node, ast.Call) and _is_read(subject, node):
            skipped.update(id(inner) for inner in ast.walk(node.args[0]))
        elif isinstance(node, ast.JoinedStr):
            for place, part in enumerate(node.values):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    if id(node) not in skipped and id(part) not in skipped:
                        yield part, part.value, place + 1 < len(node.values)
                    skipped.add(id(part))
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "://" in node.value
            and id(node) not in skipped
        ):
            yield node, node.value, False


def _unknown_hosts(subject: Subject) -> Iterator[Hit]:
    known = subject.catalog.hosts
    for cell in subject.code if known is not None else ():
        seen: set[tuple[str, int]] = set()
        for node, text, goes_on in _texts(subject, cell):
            for match in _ADDRESS.finditer(text):
                if goes_on and match.end() == len(text):
                    continue  # the rest of the name is computed
                host = match[1].strip("[].").lower()
                line = getattr(node, "lineno", 1)
                if (host, line) in seen or not _leads_somewhere(host) or host in (known or ()):
                    continue
                seen.add((host, line))
                message = f"no tool and no data source has the host {host[:80]}"
                yield Hit(message, cell, line)


def _leads_somewhere(host: str) -> bool:
    if host in _IDENTIFIERS or _RESERVED.fullmatch(host):
        return False
    return host == "localhost" or "." in host or ":" in host


def _is_read(subject: Subject, call: ast.Call) -> bool:
    if not call.args or _READERS.fullmatch(subject.names.dotted(call.func)) is None:
        return False
    first = call.args[0]
    if isinstance(first, ast.JoinedStr) and first.values:
        first = first.values[0]
    text = first.value if isinstance(first, ast.Constant) else None
    return isinstance(text, str) and _START.match(text) is not None


def _direct_reads(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        for call in subject.names.calls(cell):
            if _is_read(subject, call):
                name = subject.names.dotted(call.func)
                yield Hit(f"{name} reads an address directly", cell, call.lineno)


RULES = (
    Rule(
        "direct-read",
        Severity.ERROR,
        "from isolation L2 on a job's kernel reaches the gateway alone; and nobody decided, labelled or recorded"
        " what is read",
        'name the place in registry/data.yaml and read it with toolkit.data("name").read(…)',
        _direct_reads,
    ),
    Rule(
        "unknown-host",
        Severity.WARNING,
        "from isolation L2 on a job's kernel reaches the gateway alone, which asks only hosts that"
        " registry/tools.yaml and registry/data.yaml name; an address in a text that nobody asks"
        " does no harm",
        "add the host's service to registry/tools.yaml or registry/data.yaml and call it through"
        " the toolkit",
        _unknown_hosts,
    ),
)
