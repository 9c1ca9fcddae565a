"""Cases from elsewhere, and how they get into a set.

What is imported stands in ``review.jsonl`` beside ``cases.jsonl``, in the same form, and is no part of
the set: an expectation that nobody has looked at is what was answered, not what is right.  A person
moves cases over (:func:`accept`).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from toolkit.errors import Conflict, Fault, InvalidFile, NotFound, UsageError
from toolkit.evaluation.files import read_yaml
from toolkit.evaluation.sets import Case, EvaluationSet, read_cases
from toolkit.values import check_name, digest_json

__all__ = [
    "REVIEW",
    "Imported",
    "accept",
    "add_case",
    "create_set",
    "import_cases",
    "read_case_file",
]

REVIEW = "review.jsonl"


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        added: Ids of cases that wait for review now.
        known: Cases whose inputs are in the set, or wait already.
        conflicts: Ids of cases that ask what another one asks, and expect something else: the
            first one is kept.
    """

    added: tuple[str, ...]
    known: int
    conflicts: tuple[str, ...]


def read_case_file(path: Path) -> list[Case]:
    """Read cases from a file of the form of ``cases.jsonl``.

    Raises:
        InvalidFile: It has faults; all are named, each with its line.
        NotFound: There is no such file.
    """
    faults: list[Fault] = []
    cases = read_cases(path.parent, path.name, faults)
    if faults:
        raise InvalidFile.of(str(path), faults)
    return cases


def create_set(
    folder: Path, *, agent: str, description: str, scorers: list[dict[str, Any]]
) -> None:
    """Write the ``set.yaml`` of a new set, whose cases are still to come.

    Args:
        folder: ``registry/evaluations/<name>``.
        agent: The function that answers; empty: the whole job.
        description: For people.
        scorers: As they stand in the file.

    Raises:
        Conflict: There is a set of that name.
        UsageError: The folder's name cannot be a set's.
    """
    check_name(folder.name, "set name")
    header: dict[str, Any] = {"schema": "evaluation/1", "name": folder.name}
    header |= {"description": description, **({"agent": agent} if agent else {"target": "job"})}
    header["scorers"] = scorers
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with (folder / "set.yaml").open("x", encoding="utf-8") as file:
            yaml.safe_dump(header, file, sort_keys=False, allow_unicode=True)
    except FileExistsError as error:
        raise Conflict(
            f"there is an evaluation set {folder.name!r}", where=str(folder / "set.yaml")
        ) from error


def import_cases(folder: Path, cases: Iterable[Case]) -> Imported:
    """Put cases up for review; those that ask nothing new are left out."""
    held = [*_read(folder, "cases.jsonl"), *_read(folder, REVIEW)]
    expected = {digest_json(case.inputs): digest_json(case.expected) for case in held}
    names = {case.id for case in held}
    added: list[Case] = []
    known, conflicts = 0, []
    for case in cases:
        asked, wanted = digest_json(case.inputs), digest_json(case.expected)
        if asked in expected:
            known += expected[asked] == wanted
            if expected[asked] != wanted:
                conflicts.append(case.id)
            continue
        expected[asked] = wanted
        name = case.id if case.id not in names else f"{case.id}-{asked[-8:]}"
        names.add(name)
        added.append(Case(name, case.inputs, case.expected, case.slice))
    _write(folder, REVIEW, [*_read(folder, REVIEW), *added])
    return Imported(tuple(case.id for case in added), known, tuple(conflicts))


def add_case(folder: Path, case: Case) -> EvaluationSet:
    """Add one case to a set and return the set.

    Raises:
        InvalidFile: The set would have faults with it; nothing was written.
        UsageError: Its id is taken.
    """
    return _extend(folder, [case])


def accept(folder: Path, ids: Collection[str] | None) -> EvaluationSet:
    """Move cases from review into the set and return the set.

    Args:
        folder: The set's folder.
        ids: Which; ``None`` means all.

    Raises:
        NotFound: A case does not wait for review.
        InvalidFile: The set would have faults with them; nothing was moved.
    """
    waiting = _read(folder, REVIEW)
    missing = sorted(set(ids or ()) - {case.id for case in waiting})
    if missing or not waiting:
        raise NotFound(
            f"no case {', '.join(missing)} waits for review"
            if missing
            else "no case waits for review",
            where=str(folder / REVIEW),
            next_step=f"import some: toolkit evaluation import {folder.name} …",
        )
    moved = [case for case in waiting if ids is None or case.id in ids]
    made = _extend(folder, moved)
    _write(folder, REVIEW, [case for case in waiting if case not in moved])
    return made


def _extend(folder: Path, cases: list[Case]) -> EvaluationSet:
    name = _cases_name(folder)
    held = _read(folder, name)
    taken = sorted({case.id for case in held} & {case.id for case in cases})
    if taken:
        raise UsageError(
            f"the set has a case {', '.join(taken)} already",
            where=str(folder / name),
            next_step="give the new one another id",
        )
    with tempfile.TemporaryDirectory(prefix="toolkit-set-") as scratch:
        # Tried on a copy first: a case that a scorer cannot use does not break the set.
        trial = Path(scratch) / folder.resolve().name
        shutil.copytree(folder, trial)
        _write(trial, name, [*held, *cases])
        try:
            made = EvaluationSet.load(trial)
        except InvalidFile as error:
            # The copy is gone when somebody reads this; its faults are the set's own.
            faults = [Fault(**fault) for fault in error.details["faults"]]
            raise InvalidFile.of(str(folder), faults) from None
    _write(folder, name, [*held, *cases])
    return made


def _cases_name(folder: Path) -> str:
    """Return the name of the set's own file of cases.

    Raises:
        InvalidFile: ``set.yaml`` is not YAML.
        NotFound: There is none.
    """
    faults: list[Fault] = []
    header = read_yaml(folder / "set.yaml", faults)
    if header is None:
        raise InvalidFile.of(str(folder), faults)
    name = header.get("cases")
    return name if isinstance(name, str) else "cases.jsonl"


def _read(folder: Path, name: str) -> list[Case]:
    return read_case_file(folder / name) if (folder / name).exists() else []


def _write(folder: Path, name: str, cases: Iterable[Case]) -> None:
    lines = []
    for case in cases:
        line = {"id": case.id, "inputs": case.inputs, "expected": case.expected}
        lines.append(
            json.dumps(line | ({"slice": case.slice} if case.slice else {}), ensure_ascii=False)
        )
    if lines:
        _replace(folder / name, "".join(f"{line}\n" for line in lines).encode("utf-8"))
    else:
        (folder / name).unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
