"""Leases of runs: how another machine tells a runner that works from one that is gone.

A runner renews the lease of its run every few seconds.  Its end is a time of the database's own
clock, so the clocks of two machines need not agree; on SQLite, which has none, it is the clock of
the machine that both share.  A lease is no evidence: it is in no chain, and gone when the run
ends or gets another runner (see ``update_run``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import BigInteger, Connection, bindparam, literal_column, select, update

from toolkit.ledger.codec import run_from
from toolkit.ledger.runs import SELECT_RUN
from toolkit.ledger.schema import leases
from toolkit.ledger.transaction import INSERTS, Transaction
from toolkit.values import RunRecord

__all__ = ["Lease", "hold_lease", "read_lease", "renew_lease"]

_NOW = {
    name: literal_column(text, BigInteger)
    for name, text in {
        # Julian days of the Unix epoch: see date functions of SQLite.
        "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000000.0 AS INTEGER)",
        "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
    }.items()
}
_HOLD = {
    name: insert(leases)
    .values(
        run_id=bindparam("run"),
        runner=bindparam("who"),
        until_us=_NOW[name] + bindparam("length", type_=BigInteger),
    )
    .on_conflict_do_update(
        index_elements=["run_id"],
        set_={
            "runner": bindparam("who"),
            "until_us": _NOW[name] + bindparam("length", type_=BigInteger),
        },
    )
    for name, insert in INSERTS.items()
}
_RENEW = {
    name: update(leases)
    .where(leases.c.run_id == bindparam("run"), leases.c.runner == bindparam("who"))
    .values(until_us=_NOW[name] + bindparam("length", type_=BigInteger))
    for name in INSERTS
}


@dataclass(frozen=True, slots=True)
class Lease:
    """Who says to execute a run.

    Attributes:
        runner: Its process, as in ``RunRecord.runner``.
        until_us: When the lease ends unless it is renewed: microseconds, the database's clock.
        left_s: Seconds until then as it was read; negative: it is over.
    """

    runner: str
    until_us: int
    left_s: float

    @property
    def valid(self) -> bool:
        """Whether it was not over when it was read."""
        return self.left_s > 0


def hold_lease(tx: Transaction, run_id: str, runner: str, length_s: float) -> None:
    """Give the lease of a run to a runner, whoever had it; the run must be the runner's."""
    tx.run(_HOLD[tx.dialect], {"run": run_id, "who": runner, "length": _us(length_s)})


def renew_lease(tx: Transaction, run: RunRecord, length_s: float) -> bool:
    """Renew the lease of ``run.runner``; see ``Ledger.renew``."""
    tx.lock_run(run.run_id)
    current = run_from(tx.first(SELECT_RUN, run=run.run_id))
    if current.runner != run.runner or current.state.terminal:
        return False
    values = {"run": run.run_id, "who": run.runner, "length": _us(length_s)}
    return tx.run(_RENEW[tx.dialect], values) == 1


def read_lease(connection: Connection, run_id: str) -> Lease | None:
    """Return the lease of a run, ``None`` if nobody holds one."""
    now: Any = _NOW[connection.dialect.name].label("now_us")
    row = connection.execute(select(leases, now).where(leases.c.run_id == run_id)).first()
    if row is None:
        return None
    return Lease(row.runner, row.until_us, (row.until_us - row.now_us) / 1e6)


def _us(seconds: float) -> int:
    return int(seconds * 1_000_000)
