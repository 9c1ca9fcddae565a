"""MLflow, loaded quietly, and the one place where its errors become ours."""

from __future__ import annotations

import importlib
import logging
import os
import re
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from toolkit.errors import TrackingError

__all__ = [
    "QUIET",
    "is_database",
    "load_quietly",
    "quiet",
    "quoted",
    "redact",
    "tracking_errors",
    "warm_up",
]

QUIET = {
    # No report to anybody about what is done here.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # While it stores a span with usage and no cost, MLflow fetches price lists from the internet
    # (7 s of retries without a way out).  Prices are ours to set; empty turns that off.
    "MLFLOW_MODEL_CATALOG_URI": "",
    # MLflow asks GitPython about the working folder; without a git executable that is loud.
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    # The default is 7 retries with growing waits: four minutes per request to a dead server.  The
    # shipper has a back-off of its own, and knows that it fails open.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}
"""Environment of every process that loads MLflow; values that are set already win."""

_AT_FIRST_USE = (
    "alembic.command",
    "mlflow",
    "mlflow.store.artifact.local_artifact_repo",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "mlflow.tracing.client",
)

_SECRET = re.compile(r"//[^/@\s]+@")
_LONGEST = 300


def quiet(environ: MutableMapping[str, str]) -> None:
    """Add :data:`QUIET` to an environment, keeping what is set already."""
    for name, value in QUIET.items():
        environ.setdefault(name, value)


def load_quietly() -> None:
    """Prepare this process for ``import mlflow`` (1.1 s, 160 MB: only where it is needed)."""
    quiet(os.environ)
    # Creating the tables announces each of some hundred migrations.
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)


def warm_up() -> None:
    """Import what MLflow would import with its first run in a database, and map its tables.

    Nothing is opened; a process that is forked from this one finds it in its memory.
    """
    load_quietly()
    for name in _AT_FIRST_USE:
        importlib.import_module(name)
    sqlalchemy_orm = importlib.import_module("sqlalchemy.orm")
    sqlalchemy_orm.configure_mappers()


def is_database(uri: str) -> bool:
    """Whether a tracking URI is a database that we write to ourselves, without a server."""
    return uri.partition(":")[0].partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql")


def quoted(value: str) -> str:
    """Return a value as a literal of MLflow's search language, which has no escapes.

    Raises:
        TrackingError: The value holds both kinds of quotes.
    """
    if "'" not in value:
        return f"'{value}'"
    if '"' not in value:
        return f'"{value}"'
    raise TrackingError(
        f"MLflow cannot search for {value!r}, which holds both kinds of quotes",
        next_step="use another --run-id",
    )


def redact(text: str) -> str:
    """Return one line without passwords in URLs, at most 300 characters."""
    line = " ".join(_SECRET.sub("//***@", text).split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


@contextmanager
def tracking_errors(what: str, uri: str) -> Iterator[None]:
    """Turn whatever MLflow raises into TrackingError.

    MLflow has one exception class of its own, and lets those of its HTTP client, its database
    driver, protobuf and json through; so everything but our own errors is caught.

    Args:
        what: What was tried, as it reads after "MLflow could not" (``store 12 spans``).
        uri: The tracking URI, for ``where``; its password is removed.

    Raises:
        TrackingError: Anything that MLflow raised; ``details["kind"]`` is its class name and
            ``details["code"]`` MLflow's error code, if any.
    """
    try:
        yield
    except TrackingError:
        raise
    except Exception as error:
        details: dict[str, Any] = {"kind": type(error).__name__}
        code = getattr(error, "error_code", None)
        if isinstance(code, str):
            details["code"] = code
        raise TrackingError(
            f"MLflow could not {what}: {redact(str(error)) or type(error).__name__}",
            where=redact(uri),
            next_step="see whether MLflow runs (`toolkit doctor`); calls are kept in the ledger "
            "and shipped later",
            details=details,
        ) from error
