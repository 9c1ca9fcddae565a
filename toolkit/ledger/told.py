"""What a run's cells show while it goes on, for people on machines that do not have its folder.

The newest look replaces the one before, and the last one stays when the run has ended.  It is no
evidence: it is in no chain, it is shortened, and an attempt that lost the run tells
nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select

from toolkit.errors import UsageError
from toolkit.ledger.codec import json_text, run_from
from toolkit.ledger.runs import SELECT_RUN
from toolkit.ledger.schema import told
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import RunRecord

__all__ = ["MOST_TOLD", "CellsTold", "read_told", "tell_cells"]

MOST_TOLD = 64_000
"""Characters that the cells of one run may take, as JSON text."""

_TELL = {
    name: insert(told)
    .values(run_id=bindparam("run"), at_us=bindparam("at"), cells=bindparam("text"))
    .on_conflict_do_update(
        index_elements=["run_id"], set_={"at_us": bindparam("at"), "cells": bindparam("text")}
    )
    for name, insert in INSERTS.items()
}


@dataclass(frozen=True, slots=True)
class CellsTold:
    """What a run's cells showed.

    Attributes:
        at_us: When the runner looked, by its own clock.
        cells: One object for each cell, as the runner gave it.
    """

    at_us: int
    cells: list[dict[str, Any]]


def tell_cells(tx: Transaction, run: RunRecord, cells: Sequence[dict[str, Any]]) -> bool:
    """Keep what the cells of a run show; see ``Ledger.tell_cells``."""
    text = json_text(list(cells))
    if len(text) > MOST_TOLD:
        raise UsageError(
            f"the cells take {len(text):,} characters, at most {MOST_TOLD:,} are kept",
            where=run.run_id,
            next_step="shorten what they show",
        )
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    if current.token_digest not in (run.token_digest, None):
        return False  # the token is the attempt's; a run that waits or ended may have none
    tx.run(_TELL[tx.dialect], {"run": run.run_id, "at": tx.clock.now_us(), "text": text})
    return True


def read_told(connection: Connection, run_id: str) -> CellsTold | None:
    """Return what the cells of a run showed when its runner looked last."""
    row = connection.execute(select(told).where(told.c.run_id == run_id)).first()
    return None if row is None else CellsTold(row.at_us, json.loads(row.cells))
