"""uv, run as a program: the one place where its failures become errors of the toolkit."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from toolkit.errors import (
    InfrastructureError,
    IntegrityError,
    NotebookRejected,
    ToolkitError,
)

__all__ = ["run_uv"]

_TIMEOUT_S = 1800.0
_OFFLINE = re.compile(
    r"network (?:connectivity )?(?:is|was) disabled|not found in the cache", re.IGNORECASE
)
_NETWORK = re.compile(
    r"failed to fetch|error sending request|dns error|connection|timed out|tcp connect"
    r"|client error|status (?:client|server) error",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://\S+", re.IGNORECASE)
_SECRETS = ("TOOLKIT_", "OPENAI_", "ANTHROPIC_")
_MAX_TEXT = 600


def run_uv(arguments: Sequence[str], *, cwd: Path, what: str) -> str:
    """Run ``uv`` with the user's own configuration (indexes, certificates, cache).

    Args:
        arguments: After ``uv``.
        cwd: Where configuration files are looked for, from there upwards.
        what: What is being done, for messages (``locking the dependencies``).

    Returns:
        What it wrote to standard output.

    Raises:
        NotebookRejected: No set of packages satisfies the declaration.
        IntegrityError: A downloaded file does not have its locked hash.
        InfrastructureError: The network, the index or uv itself failed.
    """
    try:
        done = subprocess.run(
            [_program(), *arguments],
            cwd=cwd,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = f"uv did not end within {_TIMEOUT_S:.0f} s"
        if isinstance(error, OSError):
            reason = f"uv could not be started ({error.strerror})"
        raise InfrastructureError(f"{what} failed: {reason}", next_step="try again") from error
    if done.returncode != 0:
        raise _error(what, done.stderr or done.stdout)
    return done.stdout


def _program() -> str:
    """Return the uv that is installed beside the toolkit; never one from the user's PATH."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise InfrastructureError(
            "uv is not installed beside the toolkit", next_step="pip install uv"
        ) from error


def _environment() -> dict[str, str]:
    """The user's environment: uv reads indexes and certificates from it, and needs no key of ours."""
    passed = {n: v for n, v in os.environ.items() if not n.startswith(_SECRETS)}
    for name in ("VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH", "PYTHONHOME"):
        passed.pop(name, None)
    passed.setdefault("UV_SYSTEM_CERTS", "true")
    return {**passed, "NO_COLOR": "1", "UV_NO_PROGRESS": "1"}


def _error(what: str, said: str) -> ToolkitError:
    reason = _plain(said)
    message = f"{what} failed: {reason}"
    if re.search(r"hash mismatch|hashes? (?:do|does) not match", said, re.IGNORECASE):
        return IntegrityError(
            message,
            next_step="somebody changed a published file: look at the package's history; a new "
            "promotion locks what the index has now",
        )
    offline = _OFFLINE.search(said) is not None
    if offline and os.environ.get("UV_OFFLINE"):
        return InfrastructureError(
            message, next_step="run the command once without UV_OFFLINE, so that the cache fills"
        )
    if "No solution found" in said and not offline:
        return NotebookRejected(
            message, next_step="change the declared dependencies; only wheels are installed"
        )
    if offline or _NETWORK.search(said):
        return InfrastructureError(
            message,
            next_step="check the network and the index of your uv configuration, then try again; "
            "UV_OFFLINE=1 uses what uv's cache holds",
        )
    return InfrastructureError(message, next_step="try again; `uv cache clean` if it stays")


def _plain(said: str) -> str:
    """One line without drawings and without addresses, which may hold a password."""
    kept = [line for line in said.splitlines() if not line.lstrip().startswith(("Using ", "warn"))]
    text = re.sub(r"[^\x20-\x7e]+", " ", " ".join(kept))
    text = re.sub(r"\s+", " ", _ADDRESS.sub("<address>", text)).strip()
    text = re.sub(r"^(?:error: |x )+", "", text)
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"
