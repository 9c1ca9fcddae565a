"""Bytes to a valid nbformat 4 document, or every reason why not.

The schema files are nbformat's own (package data ``v4/nbformat.v4.N.schema.json``, found without
importing the package, which takes a second); a test compares the verdicts with ``nbformat``.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.document.flaws import Flaw
from toolkit.document.shape import Place, violations
from toolkit.errors import ConfigurationError, NotFound

__all__ = ["MAX_BYTES", "load_document", "read_bytes"]

MAX_BYTES = 20_000_000
"""Largest notebook that is parsed, in bytes."""

MAX_DEPTH = 100
_MAX_FLAWS = 50
_NEWEST_MINOR = 5
_SURROGATE = re.compile("[\\ud800-\\udfff]")
_STRIP = "clear the outputs (Edit > Clear Outputs of All Cells) or write large results to files"
_RESAVE = "open the notebook in JupyterLab and save it again"


class _Refused(ValueError):
    """A JSON token that the standard does not have."""


@dataclass
class _Twins:
    """Objects with a member twice; kept alive so that their ids stay theirs."""

    found: list[tuple[dict[str, Any], list[str]]] = field(default_factory=list)

    def hook(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            self.found.append((made, sorted({n for n in names if names.count(n) > 1})))
        return made


def read_bytes(path: Path, max_bytes: int) -> bytes | Flaw:
    """Return a file's bytes, or the flaw that stops us from reading it.

    Raises:
        NotFound: There is no such file.
    """
    try:
        facts = path.stat()
        # A pipe or a device would block or never end.
        if not stat.S_ISREG(facts.st_mode):
            return Flaw("not-a-file", "it is not a regular file", "name an .ipynb file")
        if facts.st_size > max_bytes:
            return _too_large(facts.st_size, max_bytes)
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotFound(
            f"there is no notebook {path}",
            where=str(path),
            next_step="check the path; `toolkit check` takes .ipynb files",
        ) from error
    except (OSError, ValueError) as error:
        reason = (
            os.strerror(error.errno) if isinstance(error, OSError) and error.errno else "bad path"
        )
        return Flaw("not-a-file", f"it cannot be read: {reason}", "check its path and permissions")
    return data


def _too_large(size: int, limit: int) -> Flaw:
    return Flaw(
        "too-large",
        f"it has {size / 1e6:.1f} MB, more than the {limit / 1e6:g} MB that are read",
        _STRIP,
    )


def load_document(data: bytes, max_bytes: int) -> tuple[dict[str, Any] | None, list[Flaw]]:
    """Return the JSON object of a valid nbformat 4 notebook, or ``None``, and all flaws.

    Never raises, whatever the bytes are.
    """
    if len(data) > max_bytes:
        return None, [_too_large(len(data), max_bytes)]
    text = _decode(data)
    if isinstance(text, Flaw):
        return None, [text]
    twins = _Twins()
    document = _parse(text, twins)
    if isinstance(document, Flaw):
        return None, [document]
    flaws = _walk(document, twins, surrogates=bool(re.search(r"\\u[dD][89a-fA-F]", text)))
    if any(flaw.code == "too-deep" for flaw in flaws):
        return None, flaws
    flaws += _format_flaws(document)
    if len(flaws) > _MAX_FLAWS:
        rest = len(flaws) - _MAX_FLAWS
        flaws = [*flaws[:_MAX_FLAWS], Flaw("invalid-structure", f"and {rest} more faults", _RESAVE)]
    return (document if not flaws else None), flaws


def _decode(data: bytes) -> str | Flaw:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Flaw("not-utf8", "it is UTF-16, not UTF-8", "save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Flaw(
            "not-utf8",
            f"byte {error.start + 1} is not UTF-8",
            "save it as UTF-8",
            where=f"byte {error.start + 1}",
        )


def _parse(text: str, twins: _Twins) -> Any:
    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise _Refused("a number is too large for a double")
        return value

    def constant(name: str) -> float:
        raise _Refused(f"{name} is not JSON")

    try:
        return json.loads(
            text, object_pairs_hook=twins.hook, parse_float=number, parse_constant=constant
        )
    except json.JSONDecodeError as error:
        return _not_json(text, error)
    except _Refused as error:
        return Flaw("not-a-number", str(error), _RESAVE)
    except ValueError:  # Python refuses integers of more than 4,300 digits
        return Flaw("not-a-number", "an integer has too many digits", _RESAVE)
    except (RecursionError, MemoryError):
        return _too_deep()


def _too_deep() -> Flaw:
    return Flaw("too-deep", f"it is nested deeper than {MAX_DEPTH} levels", _STRIP)


def _not_json(text: str, error: json.JSONDecodeError) -> Flaw:
    start = text.lstrip()[:200]
    message, fix = f"it is not JSON: {error.msg} at column {error.colno}", _RESAVE
    if not start:
        message, fix = "it is empty", "create a notebook in JupyterLab, or restore it from git"
    elif re.search(r"^(<{7}|>{7}|={7})( |$)", text, re.MULTILINE):
        message, fix = "it holds git conflict markers", "resolve the merge conflict, then save it"
    elif start.startswith("version https://git-lfs"):
        message, fix = "it is a git LFS pointer, not the notebook", "run `git lfs pull`"
    elif start.startswith("<"):
        message, fix = "it is a web page, not a notebook", "download the raw .ipynb file"
    elif start.startswith(("#", "import ", "from ", "---")):
        message, fix = "it is a script, not a notebook", "convert it to .ipynb first"
    return Flaw("not-json", message, fix, where=f"line {error.lineno}", line=error.lineno)


def _walk(document: Any, twins: _Twins, *, surrogates: bool) -> list[Flaw]:
    """Find depth, twins and lone surrogates without recursion."""
    flaws: list[Flaw] = []
    names = {id(made): twin_names for made, twin_names in twins.found}
    stack: list[tuple[Any, Place]] = [(document, ())]
    while stack:
        node, at = stack.pop()
        if len(at) > MAX_DEPTH:
            return [_too_deep()]
        if isinstance(node, dict):
            if id(node) in names:
                flaws.append(_twin_flaw(names.pop(id(node)), at, document))
            stack.extend((item, (*at, name)) for name, item in reversed(node.items()))
            if surrogates and any(_lone(name) for name in node):
                flaws.append(_surrogate_flaw(at, document))
        elif isinstance(node, list):
            stack.extend((item, (*at, index)) for index, item in enumerate(node))
        elif surrogates and isinstance(node, str) and _lone(node):
            flaws.append(_surrogate_flaw(at, document))
    # A twin inside a value that a later twin replaced has no place left.
    flaws.extend(_twin_flaw(twin_names, (), document) for twin_names in names.values())
    return flaws


def _lone(text: str) -> bool:
    return _SURROGATE.search(text) is not None


def _twin_flaw(names: list[str], at: Place, document: Any) -> Flaw:
    shown = ", ".join(ascii(name)[:60] for name in names)
    return _placed(
        "twin-keys",
        f"the member {shown} appears twice in one object, so readers disagree about its value",
        "delete one of the two",
        at,
        document,
    )


def _surrogate_flaw(at: Place, document: Any) -> Flaw:
    message = "it holds half of a surrogate pair, which is not Unicode text"
    return _placed("not-utf8", message, "delete the broken character", at, document)


def _placed(code: str, message: str, fix: str, at: Place, document: Any) -> Flaw:
    """Build a flaw that names the cell when ``at`` is inside one."""
    if len(at) >= 2 and at[0] == "cells" and isinstance(at[1], int):
        cell = at[1] + 1
        try:
            cell_id = document["cells"][at[1]]["id"]
        except (KeyError, TypeError, IndexError):
            cell_id = None
        where = f"cell {cell}" + (f": {_dotted(at[2:])}" if len(at) > 2 else "")
        known = cell_id if isinstance(cell_id, str) else None
        return Flaw(code, message, fix, where=where, cell=cell, cell_id=known)
    return Flaw(code, message, fix, where=_dotted(at) or "file")


def _dotted(at: Place) -> str:
    text = ""
    for part in at:
        text += f"[{part}]" if isinstance(part, int) else f".{ascii(part)[1:-1][:60]}"
    return text.removeprefix(".")


def _format_flaws(document: Any) -> list[Flaw]:
    if not isinstance(document, dict):
        message = "it is JSON, but not a notebook: the outermost value is not an object"
        return [Flaw("not-a-notebook", message, "name an .ipynb file")]
    major = document.get("nbformat")
    if "nbformat" not in document and "cells" not in document:
        message = "it is JSON, but not a notebook: nbformat and cells are missing"
        return [Flaw("not-a-notebook", message, "name an .ipynb file")]
    if type(major) is int and 1 <= major < 4:
        return [
            Flaw(
                "old-format",
                f"it has notebook format {major}; version 4 is from 2014",
                "run `jupyter nbconvert --to notebook --nbformat 4 --inplace NOTEBOOK`",
                where="nbformat",
            )
        ]
    if type(major) is int and major > 4:
        fix = "update the toolkit, or save the notebook in format 4"
        message = f"it has notebook format {major}, newer than this toolkit knows"
        return [Flaw("new-format", message, fix, where="nbformat")]
    return _schema_flaws(document)


def _schema_flaws(document: dict[str, Any]) -> list[Flaw]:
    minor = document.get("nbformat_minor")
    known = minor if type(minor) is int and 0 <= minor <= _NEWEST_MINOR else _NEWEST_MINOR
    schema = _schema(known)
    flaws: dict[tuple[str, str], Flaw] = {}
    for at, message in violations(schema, document):
        if len(at) == 3 and at[0] == "cells" and at[2] == "id" and message != "must be text":
            cell = document["cells"][at[1]]
            # A missing id, or one in a format that has none, is repaired and remarked.
            if "id" not in cell or (known < _NEWEST_MINOR and isinstance(cell["id"], str)):
                continue
        flaw = _placed("invalid-structure", f"{_last(at)} {message}", _RESAVE, at, document)
        flaws.setdefault((flaw.where, flaw.message), flaw)
    return list(flaws.values())


def _last(at: Place) -> str:
    if not at:
        return "the notebook"
    return f"item {at[-1] + 1}" if isinstance(at[-1], int) else ascii(at[-1])[1:-1][:60]


@functools.cache
def _schema(minor: int) -> dict[str, Any]:
    spec = importlib.util.find_spec("nbformat")
    if spec is None or spec.origin is None:
        raise ConfigurationError(
            "the package nbformat is not installed",
            next_step="install the toolkit with its dependencies",
        )
    file = Path(spec.origin).parent / "v4" / f"nbformat.v4.{minor}.schema.json"
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema
