"""Who is alive: one row per worker, renewed on the database's own clock."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from toolkit.scheduling.vendor import engine_errors, sql_engine, sqlite_path
from toolkit.values import sleepless_s

__all__ = ["Leases", "last_heard"]

_LOOK_S = 2.0


def last_heard(url: str) -> list[float]:
    """Return, for every worker that holds a lease, the seconds since it renewed it; fewest first.

    On SQLite the lease of a worker that died stays until another one starts.

    Raises:
        EngineError: The database does not answer.
    """
    engine = sql_engine(url)
    now = _now(alone=sqlite_path(url) is not None)
    renewed = sa.column("renewed_s", sa.Double)
    try:
        with engine_errors("reading the workers' leases"), engine.connect() as connection:
            if not sa.inspect(connection).has_table("toolkit_leases"):
                return []
            ages = sa.select(now - renewed).select_from(sa.table("toolkit_leases"))
            return sorted(connection.execute(ages).scalars())
    finally:
        engine.dispose()


def _now(*, alone: bool) -> sa.ColumnClause[float]:
    """Return the database's own clock, seconds since the epoch."""
    text = "(julianday('now') - 2440587.5) * 86400.0"
    return sa.literal_column(
        text if alone else "extract(epoch from clock_timestamp())", sa.Double()
    )


class Leases:
    """The lease of one worker, and the list of all.

    Args:
        url: The engine's database.
        worker: This worker's id, never used before and never again.
        length_s: Seconds after which a lease that was not renewed is gone.
        seconds: This process's own clock, which has to go on while the machine is suspended.

    Attributes:
        silent_s: Workers whose leases the last :meth:`renew` found over, and for how many seconds
            they had not renewed them.
    """

    def __init__(
        self, url: str, worker: str, length_s: float, seconds: Callable[[], float] = sleepless_s
    ) -> None:
        self.worker = worker
        self.length_s = length_s
        self._alone = sqlite_path(url) is not None
        self._engine = sql_engine(url)
        self._now = _now(alone=self._alone)
        self._table = sa.Table(
            "toolkit_leases",
            sa.MetaData(),
            sa.Column("worker", sa.Text, primary_key=True),
            sa.Column("renewed_s", sa.Double, nullable=False),
        )
        self._seconds = seconds
        self._renewed_s = seconds()
        self.silent_s: dict[str, float] = {}

    @property
    def lost(self) -> bool:
        """Whether the lease may have expired by now, going by this process's own clock."""
        return self._seconds() - self._renewed_s > self.length_s

    def take(self) -> None:
        """Write the lease, before any work is taken.

        On SQLite this worker is alone, by its lock on a file: every other lease is of a worker
        that died, and its work need not wait.

        Raises:
            EngineError: The database does not answer.
        """
        with engine_errors("taking the worker's lease"), self._engine.begin() as connection:
            connection.execute(
                sa.text(
                    "CREATE TABLE IF NOT EXISTS toolkit_leases"
                    " (worker TEXT PRIMARY KEY, renewed_s DOUBLE PRECISION NOT NULL)"
                )
            )
            if self._alone:
                connection.execute(self._table.delete())
            connection.execute(self._table.insert().values(worker=self.worker, renewed_s=self._now))
        self._renewed_s = self._seconds()

    @property
    def look_s(self) -> float:
        """Seconds between two looks at the leases: work is taken over soon after a lease is over."""
        return min(self.length_s / 8, _LOOK_S)

    def renew(self) -> set[str] | None:
        """Renew the lease, delete expired ones and return who is alive.

        Returns:
            Ids of all living workers; ``None`` if this worker's lease was taken away, so that
            somebody else has its work.

        Raises:
            EngineError: The database does not answer.
        """
        started_s = self._seconds()
        mine = self._table.c.worker == self.worker
        with engine_errors("renewing the worker's lease"), self._engine.begin() as connection:
            if not self._alone:
                # Who is stopped right here holds its own row: others must not wait for it.
                patience_ms = max(1_000, int(self.length_s * 250))
                connection.execute(
                    sa.text(f"SET LOCAL idle_in_transaction_session_timeout = {patience_ms}")
                )
            renewed = connection.execute(
                self._table.update().where(mine).values(renewed_s=self._now)
            ).rowcount
            over = self._table.c.renewed_s < self._now - self.length_s
            silent = self._table.delete().where(over)
            ages = silent.returning(self._table.c.worker, self._now - self._table.c.renewed_s)
            self.silent_s = {row[0]: float(row[1]) for row in connection.execute(ages)}
            alive = set(connection.execute(sa.select(self._table.c.worker)).scalars())
        if not renewed:
            return None
        self._renewed_s = started_s
        return alive

    def drop(self) -> None:
        """Give the lease up; what this worker left is free for others at once.

        Raises:
            EngineError: The database does not answer.
        """
        mine = self._table.c.worker == self.worker
        with engine_errors("dropping the worker's lease"), self._engine.begin() as connection:
            connection.execute(self._table.delete().where(mine))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()
