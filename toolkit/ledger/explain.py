"""Errors of SQLite and PostgreSQL as :class:`LedgerError`, with what to do about them.

Sources: SQLite result codes (``sqlite_errorname``), PostgreSQL appendix "Error Codes" (SQLSTATE).
The vendor's text may hold parameters, so only its code and our words are shown.
"""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from toolkit.errors import ConfigurationError, LedgerError, ToolkitError

__all__ = ["explain", "is_busy", "is_local", "is_retryable", "unsynced"]

_FULL = ("no space is left for the ledger", "free space on that disk; the call may be repeated")
_READ_ONLY = (
    "the ledger is read-only",
    "make the file, its folder and its disk writable for this user",
)
_LOCKED = (
    "another process holds the ledger's write lock",
    "find it with `toolkit doctor`; the call may be repeated",
)
_DAMAGED = (
    "the ledger file is damaged",
    "keep a copy, restore the last backup and run `toolkit ledger verify`",
)
_UNREACHABLE = (
    "the ledger's database cannot be reached",
    "start the database or correct database_url; the call may be repeated",
)
_IO = ("the ledger's disk reports an error", "check the disk; the call may be repeated")
_REFUSED = (
    "the ledger's database refused the login",
    "correct user and password in database_url",
)
_MISSING = (
    "the ledger's database does not exist",
    "create it (`createdb NAME`), or correct its name in database_url",
)
_VALUE = ("a value cannot be stored in the ledger", "see `toolkit doctor`, and report this")

_SQLITE = {
    "SQLITE_FULL": _FULL,
    "SQLITE_READONLY": _READ_ONLY,
    "SQLITE_PERM": _READ_ONLY,
    "SQLITE_BUSY": _LOCKED,
    "SQLITE_LOCKED": _LOCKED,
    "SQLITE_CORRUPT": _DAMAGED,
    "SQLITE_NOTADB": _DAMAGED,
    "SQLITE_CANTOPEN": _UNREACHABLE,
    "SQLITE_IOERR": _IO,
}
_STATES = {
    "53100": _FULL,
    "25006": _READ_ONLY,
    "42501": _READ_ONLY,
    "55P03": _LOCKED,
    "40P01": _LOCKED,
    "40001": _LOCKED,
    "58030": _IO,
    "XX001": _DAMAGED,
    "XX002": _DAMAGED,
}
_CLASSES = {"08": _UNREACHABLE, "57": _UNREACHABLE, "53": _UNREACHABLE, "22": _VALUE}
# Trying again will not help.
_SETTINGS = {"28": _REFUSED, "3D": _MISSING}


def _origin(error: BaseException) -> BaseException:
    return error.orig if isinstance(error, DBAPIError) and error.orig is not None else error


def _sqlite_name(error: BaseException) -> str:
    name = getattr(error, "sqlite_errorname", None) or ""
    return "_".join(name.split("_")[:2])


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def is_busy(error: BaseException) -> bool:
    """Whether SQLite only says that somebody else is writing."""
    return _sqlite_name(_origin(error)) in ("SQLITE_BUSY", "SQLITE_LOCKED")


def is_retryable(error: BaseException) -> bool:
    """Whether PostgreSQL gave up one of two transactions that met head-on."""
    return _state(_origin(error)) in ("40001", "40P01")


def is_local(error: BaseException) -> bool:
    """Whether one statement was wrong (a value, a constraint) and the database is well."""
    origin = _origin(error)
    name, state = _sqlite_name(origin), _state(origin)
    if isinstance(origin, sqlite3.Error):
        return name in ("SQLITE_CONSTRAINT", "SQLITE_MISMATCH", "SQLITE_TOOBIG")
    # psycopg refuses some values itself: an error without a state, but not of the connection.
    return state[:2] in ("22", "23") or type(origin).__name__ == "DataError"


def explain(error: BaseException, place: str) -> ToolkitError:
    """Return the error for people: cause, place, next step."""
    origin = _origin(error)
    code = _sqlite_name(origin) or _state(origin)
    cause = _SQLITE.get(code) or _STATES.get(code) or _CLASSES.get(code[:2])
    details = {"code": getattr(origin, "sqlite_errorname", None) or code or type(origin).__name__}
    wrong = _SETTINGS.get(code[:2]) or _not_let_in(origin)
    if wrong is not None:
        return ConfigurationError(wrong[0], where=place, next_step=wrong[1], details=details)
    if cause is None and isinstance(error, PoolTimeout):
        cause = ("every connection to the ledger is in use", "repeat the call")
    if cause is None and isinstance(error, DBAPIError) and error.connection_invalidated:
        cause = _UNREACHABLE
    if cause is None and type(origin).__name__ == "OperationalError" and not code:
        cause = _UNREACHABLE  # psycopg names no state when there is no connection
    message, step = cause or (
        f"the ledger's database failed ({details['code']})",
        "run `toolkit doctor`; the call may be repeated",
    )
    return LedgerError(message, where=place, next_step=step, details=details)


def unsynced(error: OSError, place: str) -> LedgerError:
    """Return the error for a disk that does not keep what it was given."""
    return LedgerError(
        f"the ledger's disk did not keep what was written ({error.strerror or 'a sync failed'})",
        where=place,
        next_step="check the disk, then end the gateway (`toolkit gateway --stop`) and run `toolkit "
        "ledger verify`",
        details={"code": "SYNC", "errno": error.errno},
    )


def _not_let_in(origin: BaseException) -> tuple[str, str] | None:
    # libpq reports these while connecting, when psycopg has no SQLSTATE yet.
    text = str(origin)
    if isinstance(origin, sqlite3.Error):
        return None
    if "database " in text and "does not exist" in text:
        return _MISSING
    return _REFUSED if "authentication failed" in text else None
