"""What differs between two versions, as data."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from toolkit.registry.manifest import Manifest

__all__ = ["CellChange", "Change", "FileChange", "ValueChange", "VersionDiff", "diff_versions"]

_NOTEBOOK = "notebook.ipynb"
_LOCK = "requirements.lock"
_EVIDENCE = "evidence.json"
_TOOLS = "tools.json"
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE | re.ASCII)
_FACTS = (
    "by",
    "results",
    "policy_digest",
    "evaluation_digest",
    "notebook_digest",
    "git_commit",
    "environment",
    "timeouts",
    "extra",
)


class Change(StrEnum):
    """How something differs."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file.

    Attributes:
        path: Its name.
        change: ``added``, ``removed`` or ``changed``.
        before, after: Digests, ``None`` where it is missing.
    """

    path: str
    change: Change
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class ValueChange:
    """One parameter's schema, or one fact of the manifest.

    Attributes:
        name: The parameter or fact.
        change: ``added``, ``removed`` or ``changed``.
        before, after: JSON values.
    """

    name: str
    change: Change
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class CellChange:
    """One notebook cell.

    Attributes:
        cell: Its id; ``#4`` for the fifth cell of a notebook without ids.
        change: ``moved`` means same text, other place among the cells both versions have.
        before, after: Source text.
    """

    cell: str
    change: Change
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class VersionDiff:
    """Everything that differs; empty and false if nothing does.

    Attributes:
        before, after: ``licence-review@2`` and ``licence-review@3``.
        files, parameters, facts, cells: The changes, in a stable order.
        packages: Versions of packages that differ: locked ones, or those of the workspace where
            neither version is locked and both recorded them.
        scores: Means that differ, by ``set/scorer``, as they were when each was promoted.
        sets: Digests of evaluation sets that differ, by name.
        tools: Tools of the catalog that differ, with the members of their entries that do;
            ``server NAME`` is how one is reached.
        tools_unknown: Versions that keep no tools: nothing is known of theirs.
    """

    before: str
    after: str
    files: tuple[FileChange, ...] = ()
    parameters: tuple[ValueChange, ...] = ()
    facts: tuple[ValueChange, ...] = ()
    cells: tuple[CellChange, ...] = ()
    packages: tuple[ValueChange, ...] = ()
    scores: tuple[ValueChange, ...] = ()
    sets: tuple[ValueChange, ...] = ()
    tools: tuple[ValueChange, ...] = ()
    tools_unknown: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.parameters or self.facts or self.cells)


def diff_versions(
    before: Manifest, old: dict[str, bytes], after: Manifest, new: dict[str, bytes]
) -> VersionDiff:
    """Compare two versions by their manifests and verified files."""
    old_facts, new_facts = before.to_json(), after.to_json()
    proof = _evidence(old.get(_EVIDENCE)), _evidence(new.get(_EVIDENCE))
    kept = _tools(old.get(_TOOLS)), _tools(new.get(_TOOLS))
    refs = f"{before.name}@{before.version}", f"{after.name}@{after.version}"
    files = _changes(
        {path: fact.digest for path, fact in before.files.items()},
        {path: fact.digest for path, fact in after.files.items()},
    )
    return VersionDiff(
        before=refs[0],
        after=refs[1],
        files=tuple(FileChange(c.name, c.change, c.before, c.after) for c in files),
        parameters=tuple(_changes(_parameters(before), _parameters(after))),
        facts=tuple(
            _changes(
                {key: old_facts[key] for key in _FACTS}, {key: new_facts[key] for key in _FACTS}
            )
        ),
        cells=tuple(_cell_changes(_cells(old.get(_NOTEBOOK)), _cells(new.get(_NOTEBOOK)))),
        packages=tuple(_package_changes((old.get(_LOCK), new.get(_LOCK)), proof)),
        scores=tuple(_changes(*map(_scores, proof))),
        sets=tuple(_changes(*map(_sets, proof))),
        tools=() if None in kept else tuple(_tool_changes(kept[0] or {}, kept[1] or {})),
        tools_unknown=tuple(ref for ref, tools in zip(refs, kept, strict=True) if tools is None),
    )


def _package_changes(
    locks: tuple[bytes | None, bytes | None], proof: tuple[dict[str, Any], dict[str, Any]]
) -> list[ValueChange]:
    if any(locks):
        return _changes(_packages(locks[0]), _packages(locks[1]))
    listed = [
        "\n".join(map(str, one)) if isinstance(one := each.get("distributions"), list) else ""
        for each in proof
    ]
    if not all(listed):
        return []
    before, after = (_packages(text.encode("utf-8", "replace")) for text in listed)
    return _changes(before, after)


def _tools(data: bytes | None) -> dict[str, Any] | None:
    """Entry by tool of a ``tools.json``, and digests of servers; ``None`` if there is none."""
    try:
        body = json.loads(data or b"null")
        servers = {f"server {name}": {"reached": one} for name, one in body["servers"].items()}
        return {**body["tools"], **servers}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _tool_changes(old: dict[str, Any], new: dict[str, Any]) -> list[ValueChange]:
    """Of a changed entry only the members that differ; of a new or removed one all."""
    found = _changes(old, new)
    return [
        ValueChange(c.name, c.change, *_differing(c.before, c.after))
        if c.change is Change.CHANGED and isinstance(c.before, dict) and isinstance(c.after, dict)
        else c
        for c in found
    ]


def _differing(before: dict[str, Any], after: dict[str, Any]) -> tuple[Any, Any]:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return {n: before.get(n) for n in names}, {n: after.get(n) for n in names}


def _sets(proof: dict[str, Any]) -> dict[str, Any]:
    found = proof.get("evaluation_sets")
    return found if isinstance(found, dict) else {}


def _evidence(data: bytes | None) -> dict[str, Any]:
    """The members of an ``evidence.json``; another file has none."""
    try:
        found = json.loads(data or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _packages(lock: bytes | None) -> dict[str, Any]:
    """Version by package of a ``requirements.lock``; lines of another form are left out."""
    text = (lock or b"").decode("utf-8", "replace")
    return {match[1].lower(): match[2] for match in _PIN.finditer(text)}


def _scores(proof: dict[str, Any]) -> dict[str, Any]:
    """Mean by ``set/scorer`` of an evidence; one without scores has none."""
    try:
        made = proof.get("evaluations") or {}
        if not made and proof.get("evaluation"):
            made = {proof["evaluation"]["set_name"]: proof["evaluation"]}
        return {
            f"{name}/{scorer}": score["mean"]
            for name, one in made.items()
            for scorer, score in one["scores"].items()
        }
    except (TypeError, KeyError, AttributeError):
        return {}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> list[ValueChange]:
    found: list[ValueChange] = []
    for name in sorted({*old, *new}):
        if name not in new:
            found.append(ValueChange(name, Change.REMOVED, old[name], None))
        elif name not in old:
            found.append(ValueChange(name, Change.ADDED, None, new[name]))
        elif old[name] != new[name]:
            found.append(ValueChange(name, Change.CHANGED, old[name], new[name]))
    return found


def _parameters(manifest: Manifest) -> dict[str, Any]:
    properties = manifest.parameters.get("properties")
    return properties if isinstance(properties, dict) else {}


def _cells(notebook: bytes | None) -> dict[str, str]:
    """Source text by cell id; a file that is not a notebook has no cells."""
    try:
        body = json.loads(notebook or b"null")
        cells = body["cells"]
        return {
            str(cell.get("id") or f"#{index}"): "".join(cell.get("source") or "")
            for index, cell in enumerate(cells)
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def _cell_changes(old: dict[str, str], new: dict[str, str]) -> list[CellChange]:
    """Changes in the order of the newer notebook, removed cells first."""
    found = [CellChange(c, Change.REMOVED, text, None) for c, text in old.items() if c not in new]
    shared_before = [cell for cell in old if cell in new]
    shared_after = [cell for cell in new if cell in old]
    stayed = _longest_common(shared_before, shared_after)
    for cell, text in new.items():
        if cell not in old:
            found.append(CellChange(cell, Change.ADDED, None, text))
        elif old[cell] != text:
            found.append(CellChange(cell, Change.CHANGED, old[cell], text))
        elif cell not in stayed:
            found.append(CellChange(cell, Change.MOVED, text, text))
    return found


def _longest_common(before: list[str], after: list[str]) -> set[str]:
    """Cells of a longest run that keeps its order (both lists hold the same distinct cells)."""
    place = {cell: index for index, cell in enumerate(before)}
    best: list[tuple[int, int]] = []  # (length, previous) for each cell of ``after``
    for i, cell in enumerate(after):
        earlier = [(best[j][0], j) for j in range(i) if place[after[j]] < place[cell]]
        length, previous = max(earlier, default=(0, -1))
        best.append((length + 1, previous))
    at = max(range(len(best)), key=lambda i: best[i][0], default=-1)
    kept: set[str] = set()
    while at >= 0:
        kept.add(after[at])
        at = best[at][1]
    return kept
