"""Reading ``set.yaml`` and ``cases.jsonl`` strictly: every fault with its place."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from toolkit.errors import Fault, NotFound
from toolkit.settings import YamlDocument, parse_yaml

__all__ = ["parse_json_line", "read_document", "read_text", "read_yaml"]

MAX_BYTES = 32 * 1024 * 1024
"""Largest file that is read; a set of that size takes seconds to score."""


def read_text(path: Path, faults: list[Fault]) -> str | None:
    """Return the file's text, or ``None`` after adding a fault.

    Raises:
        NotFound: There is no such file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no {path.name} in {path.parent}",
            where=str(path),
            next_step="an evaluation set is a folder with set.yaml and cases.jsonl",
        ) from error
    except OSError as error:
        faults.append(Fault(path.name, f"cannot be read: {error.strerror or error}"))
        return None
    if len(data) > MAX_BYTES:
        faults.append(Fault(path.name, f"is larger than {MAX_BYTES} bytes", "split the set"))
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        faults.append(Fault(f"{path.name}:{line}", "is not UTF-8", "save the file as UTF-8"))
        return None


def read_yaml(path: Path, faults: list[Fault]) -> dict[str, Any] | None:
    """Return the file's mapping, or ``None`` after adding a fault with its line.

    Raises:
        NotFound: There is no such file.
    """
    document = read_document(path, faults)
    return None if document is None else dict(document.value)


def read_document(path: Path, faults: list[Fault]) -> YamlDocument | None:
    """Return the file's mapping with its lines, or ``None`` after adding a fault with its line.

    Raises:
        NotFound: There is no such file.
    """
    text = read_text(path, faults)
    if text is None:
        return None
    document, found = parse_yaml(text.encode(), path.name)
    if found:
        faults.extend(found)
        return None
    if not isinstance(document.value, dict):
        faults.append(Fault(path.name, "must hold names and values"))
        return None
    return document


def parse_json_line(text: str) -> Any:
    """Return the JSON value of one line.

    Raises:
        ValueError: It is not JSON, holds a twin key, or a number that is not finite.
    """
    try:
        return json.loads(
            text,
            object_pairs_hook=_no_twins,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        twins = sorted({name for name, _ in pairs if [n for n, _ in pairs].count(name) > 1})
        raise ValueError(f"has the member {', '.join(map(repr, twins))} twice")
    return made


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"holds {text}, which is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"holds the number {text}, which is too large")
    return number
