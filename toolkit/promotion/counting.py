"""Which try at an evaluation set this is: recorded before the first case is asked, counted from the log.

Before anything of a set is asked, the audit log gets a record ``promotion.evaluating``: the job, the
notebook and its digest, ``code`` (:func:`code_digest`), ``content`` (the bytes and their environment),
``evaluation_sets`` with their digests, and under ``asked`` for each set ``key`` (the digest of all that
an answer depends on, :mod:`.recall`), ``new``, and ``earlier``: the record whose answers are used.
The record of the verdict names it as ``evaluating``.  What follows costs nothing or everything alike: an
interruption takes no attempt back, and of attempts side by side the log's order is the number.

An attempt is *new* if a question is asked that no answer is on record for, or if the set is another.
The same content before the same set, answered from the record or continued where it was killed, is the
same attempt and keeps its number; so does a lucky answer that meets another set.

The count starts anew for a job when a version of it stands in production whose code never stood there
before.  It does so from that version's own attempt on: what was tried while it waited still counts.
Promoting again what is known, rolling back, and versions that nobody let in start nothing.

Older logs have no ``promotion.evaluating``; there the record of the verdict is the attempt.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from toolkit.document import Notebook
from toolkit.evaluation import ATTEMPT_DAYS
from toolkit.registry import AuditRecord
from toolkit.values import Digest, digest_json

__all__ = ["EVALUATING", "Tries", "code_digest", "last_asked", "times_offered"]

EVALUATING = "promotion.evaluating"
_VERDICTS = ("promotion.accepted", "promotion.refused")
_ALIAS = "production"


def code_digest(notebook: Notebook) -> Digest:
    """Return the digest of what a notebook's code does: comments, layout and text do not change it.

    A cell that is not plain Python counts with its source.
    """
    return digest_json([_said(cell) for cell in notebook.cells if cell.kind == "code"])


def _said(cell: Any) -> str:
    code = cell.code
    return cell.source if code.tree is None or code.magics else ast.dump(code.tree)


@dataclass(frozen=True, slots=True)
class _Passed:
    """A version that passed: from where its attempt counts, and which code it has."""

    start: int
    codes: frozenset[str]
    on_set: bool


class Tries:
    """The attempts at one set, as a job's next promotion sees them.

    Counted are those of the last 30 days, of whatever job and notebook: a new name for the job does
    not start afresh.

    Args:
        records: The audit log, oldest first.
        job: Whose releases start a new series.
        set_name: The set.
    """

    def __init__(self, records: Iterable[AuditRecord], job: str, set_name: str) -> None:
        self._set, self._job = set_name, job
        self._at: dict[int, str] = {}
        self._new: list[int] = []
        self._earlier: dict[int, tuple[bool, int | None]] = {}
        self._passed: dict[int, _Passed] = {}
        self._moves: list[tuple[int, int]] = []
        for record in records:
            self._take(record)

    def number(self, n: int) -> int:
        """Return the number of the attempt that a record of the log began or repeated, from 1 on."""
        best, at = 1, n
        while at in self._at:
            new, earlier = self._earlier.get(at, (True, None))
            best = max(best, self._counted(at)) if new else best
            if earlier is None or earlier >= at:
                break
            at = earlier
        return best

    def _take(self, record: AuditRecord) -> None:
        body = record.body
        if record.event == EVALUATING:
            asked = _dict(_dict(body.get("asked")).get(self._set))
            if asked:
                self._at[record.n] = record.at
                new, earlier = asked.get("new") is not False, asked.get("earlier")
                self._earlier[record.n] = (new, earlier if isinstance(earlier, int) else None)
                self._new += [record.n] if new else []
        elif record.event in _VERDICTS:
            on_set = _evaluated(record, self._set)
            if on_set and "evaluating" not in body:  # from before attempts had records of their own
                self._at[record.n] = record.at
                self._new.append(record.n)
            if record.event == "promotion.accepted" and body.get("job") == self._job:
                start = body.get("evaluating")
                codes = frozenset(str(body[k]) for k in ("code", "notebook_digest") if body.get(k))
                passed = _Passed(start if isinstance(start, int) else record.n, codes, on_set)
                self._passed[int(body.get("version") or 0)] = passed
        elif record.event == "alias.moved" and body.get("name") == self._job:
            number = body.get("after")
            if body.get("alias") == _ALIAS and isinstance(number, int):
                self._moves.append((record.n, number))

    def _counted(self, n: int) -> int:
        oldest = datetime.fromisoformat(self._at[n]) - timedelta(days=ATTEMPT_DAYS)
        start = self._start(n)
        return sum(
            start < each <= n and datetime.fromisoformat(self._at[each]) >= oldest
            for each in self._new
        )

    def _start(self, n: int) -> int:
        """Return the record after which attempts count, as of record ``n``."""
        start, known = 0, set[str]()
        for moved, version in self._moves:
            passed = self._passed.get(version)
            if moved > n or passed is None:
                continue
            if passed.on_set and not passed.codes & known:
                start = max(start, passed.start)
            known |= passed.codes
        return start


def last_asked(
    records: Sequence[AuditRecord], set_name: str, key: Digest, set_digest: Digest
) -> tuple[int, bool] | None:
    """Return the last record that began to ask the same of the same content.

    Returns:
        Its number and whether the set was the same; one with the same set goes before the others.
        ``None``: there is none.
    """
    found: tuple[int, bool] | None = None
    for record in reversed(records):
        if record.event != EVALUATING:
            continue
        asked = _dict(_dict(record.body.get("asked")).get(set_name))
        if asked.get("key") != key:
            continue
        if _dict(record.body.get("evaluation_sets")).get(set_name) == set_digest:
            return record.n, True
        found = found or (record.n, False)
    return found


def times_offered(records: Iterable[AuditRecord], job: str, digest: str, own: int | None) -> int:
    """Return how often a job's notebook was offered, without the offer whose record is ``own``.

    An evaluation that was begun and has no verdict was an offer too: it was ended, or goes on.
    """
    verdicts, begun, ended = 0, set[int](), set[int]()
    for record in records:
        body = record.body
        if body.get("job") != job or body.get("notebook_digest") != digest:
            continue
        if record.event in _VERDICTS:
            verdicts += 1
            ended.add(int(body.get("evaluating") or 0))
        elif record.event == EVALUATING and record.n != own:
            begun.add(record.n)
    return verdicts + len(begun - ended)


def _evaluated(record: AuditRecord, set_name: str) -> bool:
    stages, sets = _dict(record.body.get("stages")), _dict(record.body.get("evaluation_sets"))
    return stages.get("evaluate") is not None and set_name in sets


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
