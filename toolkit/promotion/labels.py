"""Attempts of a candidate's kernel on the files of evaluation sets, as the ledger recorded them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit.client import OPENED
from toolkit.document import Notebook
from toolkit.ledger import Ledger
from toolkit.promotion.check import Finding
from toolkit.promotion.stages import finding
from toolkit.values import CallKind, CallRecord

__all__ = ["is_label_attempt", "label_attempts"]

_SHOWN = 200


def is_label_attempt(call: CallRecord) -> bool:
    """Say whether a call is the record of such an attempt (:mod:`toolkit.client.labels`)."""
    return call.intent.kind is CallKind.TOOL and call.intent.name == OPENED


def label_attempts(
    ledger: Ledger, run_ids: Iterable[str], notebook: Notebook, stage: str
) -> list[Finding]:
    """Return one finding per place and path; whether policy let the call through does not matter.

    No finding is no proof: the record is made in the kernel, by code that a notebook can reach.
    """
    numbers = {cell.id: cell.number for cell in notebook.cells}
    found: dict[tuple[str, str, int], Finding] = {}
    for call in _calls(ledger, run_ids):
        told = call.intent.arguments
        if not is_label_attempt(call) or not isinstance(told, dict):
            continue
        path, cell = str(told.get("path"))[:_SHOWN], str(told.get("cell"))
        line = told.get("line")
        number = line if isinstance(line, int) and not isinstance(line, bool) and line > 0 else 0
        found.setdefault(
            (path, cell, number),
            finding(
                f"{stage}.labels",
                f"the notebook tried to reach the files of an evaluation set: {path!a}",
                fix="take it out: a case's inputs are the agent's arguments, and all that it gets",
                why="an agent that has seen what is expected proves nothing",
                cell=numbers.get(cell),
                line=number or None,
            ),
        )
    return list(found.values())


def _calls(ledger: Ledger, run_ids: Iterable[str]) -> Iterator[CallRecord]:
    for run_id in run_ids:
        after = 0
        while calls := ledger.calls(run_id, after_seq=after, limit=1000):
            after = calls[-1].seq
            yield from calls
