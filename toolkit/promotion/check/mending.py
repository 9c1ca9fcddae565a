"""The mechanical fixes: what a machine can decide about a notebook's file, and nothing else.

No line of a cell is rewritten.  What is not sure stays as it is: a notebook that cannot be read, an
old one that does not convert, a kernel that nothing tells.
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.document import MAX_BYTES, Cell, Notebook, examine_bytes
from toolkit.errors import Busy, UsageError
from toolkit.promotion.check.spotted import masked

__all__ = ["Mended", "mend", "mend_file"]

_MAX_BYTES = 200_000_000
_MAX_SHOWN = 300
_INJECTED = "injected-parameters"
_SPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Mended:
    """What mending a file came to.

    Attributes:
        before, after: The file's bytes; the same object where nothing was mended.
        changes: What was mended, a sentence each; empty where nothing was.
    """

    before: bytes
    after: bytes
    changes: tuple[str, ...] = ()

    def diff(self, name: str) -> Iterator[str]:
        """Yield the lines of a unified diff for the screen.

        Outputs and attachments stand there by their size, and secrets by their kind.
        """
        if not self.changes:
            return
        before, after = (_shown(data).splitlines() for data in (self.before, self.after))
        yield from difflib.unified_diff(before, after, f"a/{name}", f"b/{name}", lineterm="")


def mend(data: bytes, *, clear_outputs: bool = False) -> Mended:
    """Mend the bytes of a notebook; never raises, whatever they are.

    Mended are: format 1 to 3 (converted by nbformat), missing and twin cell ids, a missing kernel
    specification where all code is Python, and the cell and metadata that papermill adds.

    Args:
        data: The file's bytes.
        clear_outputs: Also delete outputs, execution counts and the state of widgets.  A
            promotion compares its own run with the outputs, so they are kept by default.
    """
    limit = _MAX_BYTES if clear_outputs else MAX_BYTES
    changes: list[str] = []
    examined = examine_bytes(data, "notebook", max_bytes=limit)
    current = data
    if [flaw.code for flaw in examined.flaws] == ["old-format"]:
        converted = _converted(data)
        if converted is None:
            return Mended(data, data)
        current = converted
        examined = examine_bytes(current, "notebook", max_bytes=limit)
        changes.append("converted to notebook format 4")
    if examined.notebook is None:
        return Mended(data, data)
    document = json.loads(current.decode("utf-8-sig"))
    _mend_ids(document, examined.notebook, changes)
    _mend_kernel(document, examined.notebook, changes)
    if clear_outputs:
        _clear(document, changes)
    _remove_injected(document, changes)
    if not changes:
        return Mended(data, data)
    after = (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()
    if examine_bytes(after, "notebook", max_bytes=limit).notebook is None:
        return Mended(data, data)  # better untouched than in another way broken
    return Mended(data, after, tuple(changes))


def mend_file(path: Path, *, clear_outputs: bool = False, write: bool = True) -> Mended:
    """Mend a file in one step: after a crash there is the old one or the new one.

    A symbolic link stays one, and the file's permissions stay; other hard links keep the old
    content.

    Args:
        path: The notebook.
        clear_outputs: See :func:`mend`.
        write: ``False`` to see what would be done.

    Raises:
        UsageError: It cannot be read or written.
        Conflict: Somebody else wrote it meanwhile.
    """
    target = path.resolve()
    try:
        if not target.is_file() or target.stat().st_size > _MAX_BYTES:
            return Mended(b"", b"")
        data = target.read_bytes()
        mended = mend(data, clear_outputs=clear_outputs)
        if mended.changes and write:
            _replace(target, mended)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "bad path"
        raise UsageError(
            f"{path} cannot be mended: {reason}",
            where=str(path),
            next_step="check the permissions of the file and its folder",
        ) from error
    return mended


def _replace(target: Path, mended: Mended) -> None:
    draft = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    with draft.open("xb") as stream:
        try:
            os.fchmod(stream.fileno(), stat.S_IMODE(target.stat().st_mode))
            stream.write(mended.after)
            stream.flush()
            os.fsync(stream.fileno())
            _refuse_changed(target, mended)
            draft.replace(target)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise


def _refuse_changed(target: Path, mended: Mended) -> None:
    if target.read_bytes() != mended.before:
        raise Busy(
            f"{target.name} was changed while it was mended",
            where=str(target),
            next_step="save it in JupyterLab, then mend it again",
        )


def _converted(data: bytes) -> bytes | None:
    import nbformat  # takes a second, and old formats are rare

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old = nbformat.reads(data.decode("utf-8-sig"), as_version=nbformat.NO_CONVERT)
            document = json.loads(nbformat.writes(nbformat.convert(old, 4)))
    except Exception:  # nbformat documents none of what it raises for odd input
        return None
    for cell in document.get("cells", ()):
        cell.pop("id", None)  # drawn at random; ours follow from the content
    document["nbformat_minor"] = min(document.get("nbformat_minor", 4), 4)
    return json.dumps(document, ensure_ascii=False, indent=1).encode()


def _mend_ids(document: dict[str, Any], notebook: Notebook, changes: list[str]) -> None:
    count = 0
    for raw, cell in zip(document["cells"], notebook.cells, strict=True):
        if raw.get("id") != cell.id:
            raw["id"] = cell.id
            count += 1
    if count:
        document["nbformat_minor"] = max(document.get("nbformat_minor", 0), 5)
        changes.append(f"{_cells(count)} got an id")


def _mend_kernel(document: dict[str, Any], notebook: Notebook, changes: list[str]) -> None:
    if document["metadata"].get("kernelspec") or notebook.language not in (None, "python"):
        return
    code = [cell for cell in notebook.cells if cell.kind == "code" and cell.source.strip()]
    if code and all(_is_python(cell) for cell in code):
        document["metadata"]["kernelspec"] = dict(_SPEC)
        changes.append("its kernel is named: python3")


def _is_python(cell: Cell) -> bool:
    return cell.code.tree is not None


def _clear(document: dict[str, Any], changes: list[str]) -> None:
    count = 0
    for cell in document["cells"]:
        if cell.get("cell_type") != "code":
            continue
        if cell.get("outputs") or cell.get("execution_count") is not None:
            cell["outputs"], cell["execution_count"] = [], None
            count += 1
    if count:
        changes.append(f"outputs and execution counts of {_cells(count)} cleared")
    if document["metadata"].pop("widgets", None):
        changes.append("the state of widgets cleared")


def _remove_injected(document: dict[str, Any], changes: list[str]) -> None:
    kept = [cell for cell in document["cells"] if not _is_injected(cell)]
    removed = len(document["cells"]) - len(kept)
    if not removed:
        return
    document["cells"] = kept
    for holder in (document, *kept):
        holder["metadata"].pop("papermill", None)
    changes.append(f"{_cells(removed)} with the parameters of an earlier run removed")


def _is_injected(cell: dict[str, Any]) -> bool:
    tags = cell["metadata"].get("tags", ())
    # A cell with both tags is the author's own declaration.
    return cell["cell_type"] == "code" and _INJECTED in tags and "parameters" not in tags


def _cells(count: int) -> str:
    return "1 cell" if count == 1 else f"{count} cells"


def _shown(data: bytes) -> str:
    return json.dumps(_bare(json.loads(data.decode("utf-8-sig"))), ensure_ascii=False, indent=1)


def _bare(value: Any, name: str = "") -> Any:
    """Return a JSON value as it may be shown: no outputs, no attachments, no secrets."""
    if name in {"outputs", "attachments", "widgets"} and value:
        return f"… {len(json.dumps(value, ensure_ascii=False))} characters …"
    if isinstance(value, dict):
        return {key: _bare(item, key) for key, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return [_cut(line) for line in masked("".join(value)).splitlines(keepends=True)]
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return _cut(masked(value)) if isinstance(value, str) else value


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
