"""What this room needs of DBOS and its database, and the one place where their errors cross.

Pinned to ``dbos>=3.4,<3.5``.  One name with an underscore is used,
``DBOS._recover_pending_workflows`` (:func:`recover`): the public ``resume_workflows`` would also
take work from living workers, move it to another queue and forget its attempts.  A contract test
covers it, and what else of DBOS's behaviour is relied upon.
"""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from toolkit.errors import ConfigurationError, EngineError

__all__ = [
    "APP",
    "CONTROL_QUEUE",
    "RUN_QUEUE",
    "VERSION",
    "clean_url",
    "connect",
    "engine_errors",
    "forward_log",
    "hand_back",
    "prepare",
    "recover",
    "sqlite_path",
]

APP = "toolkit"
# Bumped only when the shape of a workflow changes: work of another version never starts.
VERSION = "toolkit-work-1"
RUN_QUEUE = "runs"
CONTROL_QUEUE = "control"
_LOGGER = "dbos"
# Logged for every cancelled task, with its arguments: the parameters of a run.
_REPEATS_ARGUMENTS = "Asyncio task cancelled"
_PASSWORD = re.compile(r"://([^:/@\s]*):[^@\s]*@")


@contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Turn errors of DBOS, SQLAlchemy and SQLite into :class:`EngineError`, without secrets.

    Raises:
        EngineError: The engine or its database failed.
    """
    from dbos import error as dbos_error

    try:
        yield
    except (dbos_error.DBOSException, sa.exc.SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise EngineError(
            f"{what} failed: {_cause(error)}",
            where="engine",
            next_step="check `engine_url` and that its database answers: `toolkit doctor`",
        ) from error


def _first_line(text: str) -> str:
    return _PASSWORD.sub(r"://\1:***@", (text.strip() or "no message").splitlines()[0])


def _cause(error: BaseException) -> str:
    # SQLAlchemy's own text repeats statement and values; the driver's says what is wrong.
    cause = getattr(error, "orig", None) or error
    return f"{_first_line(str(cause))} ({type(cause).__name__})"


def clean_url(url: str, root: Path) -> str:
    """Return the URL as DBOS takes it; a relative SQLite path is below ``root``.

    Raises:
        ConfigurationError: It is no SQLite file and no PostgreSQL database.
    """
    try:
        parts = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise _not_a_database() from error
    backend = parts.get_backend_name()
    if backend == "postgresql" and parts.database:
        return parts.set(drivername="postgresql").render_as_string(hide_password=False)
    if backend == "sqlite" and parts.database and parts.database != ":memory:":
        return f"sqlite:///{root / parts.database}"
    raise _not_a_database()


def _not_a_database() -> ConfigurationError:
    return ConfigurationError(
        "engine_url is not a SQLite file or a PostgreSQL database",
        where="toolkit.toml: engine_url",
        next_step="write sqlite:///path/engine.db or postgresql://user@host/database",
    )


def sqlite_path(url: str) -> Path | None:
    """Return the database file of a SQLite URL."""
    parts = sa.make_url(url)
    return Path(str(parts.database)) if parts.get_backend_name() == "sqlite" else None


def sql_engine(url: str) -> sa.Engine:
    """Return an engine of our own for the same database."""
    if sqlite_path(url) is not None:
        return sa.create_engine(url, connect_args={"timeout": 10})
    return sa.create_engine(
        sa.make_url(url).set(drivername="postgresql+psycopg"),
        pool_size=1,
        connect_args={"connect_timeout": 5},
    )


def prepare(url: str) -> None:
    """Make the database's tables if there are none.

    Raises:
        EngineError: The database does not answer.
    """
    from dbos import DBOS

    quiet_log()
    path = sqlite_path(url)
    with engine_errors("opening the queue"):
        if path is not None:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=30)) as connection:
                # Kept in the file: readers and the writer no longer wait for each other.
                connection.execute("PRAGMA journal_mode=WAL")
        engine = sql_engine(url)
        try:
            schema = None if path is not None else "dbos"
            present = sa.inspect(engine).has_table("workflow_schedules", schema=schema)
        finally:
            engine.dispose()
        if not present:
            DBOS.migrate(url)


def connect(url: str) -> Any:
    """Return a ``DBOSClient`` that raises when the database is away instead of waiting.

    Raises:
        EngineError: The database does not answer.
    """
    from dbos import DBOSClient, DBOSPortableJSONSerializer

    prepare(url)
    with engine_errors("opening the queue"):
        return DBOSClient(
            system_database_url=url,
            application_name=APP,
            # The default writes pickles: who writes the database would run code here.
            serializer=DBOSPortableJSONSerializer(),
            retry_connection_errors=False,
        )


def recover(executors: Collection[str]) -> int:
    """Put the unfinished work of these workers back into its queue; return how much it was.

    Underscore API of DBOS 3.4: an atomic compare-and-set per row on the executor's id, so that
    several workers may do it at the same time; it keeps queue and attempts.
    """
    from dbos import DBOS

    return len(DBOS._recover_pending_workflows(sorted(executors)))  # noqa: SLF001


def hand_back(url: str, executor: str) -> None:
    """Do not count the starts of work that a worker is about to hand back.

    The queue counts every start of a workflow, and gives it up after so many: that is meant for
    work that kills its workers, not for workers that are stopped.

    Raises:
        EngineError: The database does not answer.
    """
    schema = None if sqlite_path(url) is not None else "dbos"
    columns: list[sa.ColumnClause[Any]] = [
        sa.column(name) for name in ("executor_id", "status", "recovery_attempts")
    ]
    flows = sa.table("workflow_status", *columns, schema=schema)
    engine = sql_engine(url)
    try:
        with engine_errors("handing work back"), engine.begin() as connection:
            connection.execute(
                flows.update()
                .where(
                    flows.c.executor_id == executor,
                    flows.c.status == "PENDING",
                    flows.c.recovery_attempts > 0,
                )
                .values(recovery_attempts=flows.c.recovery_attempts - 1)
            )
    finally:
        engine.dispose()


def quiet_log() -> None:
    """Keep DBOS from installing its console handler: it does so where there is none."""
    logger = logging.getLogger(_LOGGER)
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


class _Forward(logging.Handler):
    def __init__(self, report: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg.startswith(_REPEATS_ARGUMENTS):
            return
        text = _first_line(record.getMessage())
        error = record.exc_info[1] if record.exc_info else None
        self._report(f"{text} {_cause(error)}" if error else text)


@contextmanager
def forward_log(report: Callable[[str], None]) -> Iterator[None]:
    """Send warnings of DBOS to ``report``, first line each, as long as the block lasts."""
    quiet_log()
    handler = _Forward(report)
    logging.getLogger(_LOGGER).addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger(_LOGGER).removeHandler(handler)
