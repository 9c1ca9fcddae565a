"""Find the workspace's gateway, and start it when it does not run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from toolkit.client.environment import outer_environment
from toolkit.errors import ConfigurationError, GatewayUnavailable

__all__ = ["ensure_gateway", "workspace_root"]

_START_TIMEOUT_S = 30.0
_NAP_S = 0.05
# Gateways outlive the process that started them; while that lives, it must reap them.
_started: list[subprocess.Popen[bytes]] = []


def workspace_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``toolkit.toml``.

    The same rule as ``toolkit.settings``, without its imports: kernels stay light.

    Raises:
        ConfigurationError: There is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "toolkit.toml").is_file():
            return folder
    raise ConfigurationError(
        f"no toolkit.toml in {here} or above it",
        where=str(here),
        next_step="open the notebook inside a workspace, or make one with `toolkit init DIR`",
    )


def _running_socket(root: Path) -> str | None:
    """Return the socket of a gateway that answers, from the record it left."""
    import socket

    try:
        record = json.loads((root / ".toolkit" / "gateway.json").read_text("utf-8"))
        path = str(record["socket"])
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(2.0)
            probe.connect(path)
    except (OSError, ValueError, KeyError):
        return None
    return path


def ensure_gateway(root: Path, *, timeout_s: float = _START_TIMEOUT_S) -> str:
    """Return the path of the workspace gateway's socket, starting the gateway if need be.

    Raises:
        GatewayUnavailable: It does not answer within ``timeout_s`` seconds.
    """
    if found := _running_socket(root):
        return found
    log = root / ".toolkit" / "logs" / "gateway.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (root / ".toolkit").chmod(0o700)
    deadline = time.monotonic() + timeout_s
    process = _start(root, log)
    while time.monotonic() < deadline:
        if found := _running_socket(root):
            return found
        code = process.poll()
        if code == 0:
            # Another process had the gateway.  If it is there, it answers by now; if not, it was
            # about to end, and the next one is ours to start.
            time.sleep(_NAP_S)
            if found := _running_socket(root):
                return found
            process = _start(root, log)
        elif code is not None:
            break
        time.sleep(_NAP_S)
    raise GatewayUnavailable(
        f"the gateway of {root} did not start: {_last_line(log)}",
        where=str(log),
        next_step="run `toolkit doctor`, or `toolkit gateway` to see it start",
    )


def _start(root: Path, log: Path) -> subprocess.Popen[bytes]:
    _started[:] = [process for process in _started if process.poll() is None]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "toolkit.app.serve", str(root)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd=root,
            # The Jupyter parent's pid would make the child watch the wrong process.
            env={k: v for k, v in outer_environment().items() if k != "JPY_PARENT_PID"},
        )
    _started.append(process)
    return process


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text("utf-8", "replace").strip().splitlines()
    except OSError:
        return "its log cannot be read"
    return lines[-1][:300] if lines else "it wrote no log"
