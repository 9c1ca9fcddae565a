"""``mlflow server`` for one workspace, on loopback, as small as it gets.

One worker and no job execution: 3.9 s and 414 MB instead of 10.9 s and 1,870 MB, and the jobs
interface, which once ran code for anybody who asked, is not there.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from typing import Self
from urllib.parse import urlsplit

import psutil
from filelock import FileLock

from toolkit.errors import TrackingError
from toolkit.ledger import is_alive
from toolkit.settings import Workspace
from toolkit.tracing.store import MlflowStore
from toolkit.tracing.vendor import is_database, quiet, redact

__all__ = ["MlflowServer", "ServerState"]

_HOST = "127.0.0.1"
_START_S = 90.0
_STOP_S = 5.0
_LOG_BYTES = 5_000_000
# Provider keys and tokens of the caller's environment are none of the server's business.
_PASSED = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR", "VIRTUAL_ENV")


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server that was started, as ``.toolkit/mlflow.json`` keeps it.

    Attributes:
        url: Address without a slash at the end.
        pid: Process id, also the id of its process group; 0 for a server that is not ours.
        started: Start time of the process, seconds since the epoch: with the pid, its identity.
        uri: Tracking URI that it serves, without a password.
    """

    url: str
    pid: int
    started: float
    uri: str


class MlflowServer:
    """The server of a workspace: at most one, found again by every command.

    Args:
        workspace: Where the database, the artifacts and the log are.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._file = workspace.state / "mlflow.json"
        self.log = workspace.state / "logs" / "mlflow.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def running(self) -> ServerState | None:
        """Return the server of this workspace if its process is alive."""
        try:
            state = ServerState(**json.loads(self._file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return state if _process(state) is not None else None

    def url(self) -> str | None:
        """Return the address that links should use, ``None`` if nothing serves."""
        if not is_database(self._workspace.mlflow_uri):
            return self._workspace.mlflow_uri.rstrip("/")
        state = self.running()
        return state.url if state else None

    def answers(self) -> bool:
        """Whether whoever serves the workspace's pages answers over HTTP."""
        url = self.url() or ""
        # Other addresses (``databricks``) are MLflow's own to resolve.
        return _healthy(url) if url.startswith(("http://", "https://")) else bool(url)

    def start(self, port: int | None = None) -> str:
        """Start the server, or find it running, and return its address when it answers.

        Args:
            port: Loopback port, 0 for a free one; default is the setting ``mlflow_port``.

        Raises:
            TrackingError: It did not start; the message holds its last words.
        """
        uri = self._workspace.mlflow_uri
        if not is_database(uri):
            return uri.rstrip("/")  # somebody else's server
        self.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with FileLock(self._file.with_suffix(".lock")):
            state = self.running()
            if state is not None and _healthy(state.url):
                return state.url
            if state is not None:
                self._kill(state)
            # The tables are made here, under the store's lock, and not by the server.
            MlflowStore(uri, artifacts=self._workspace.artifacts).experiment(
                self._workspace.settings.experiment
            )
            wanted = self._workspace.settings.mlflow_port if port is None else port
            return self._launch(uri, _free_port(wanted)).url

    def stop(self) -> bool:
        """Stop the server of this workspace; return whether there was one."""
        with FileLock(self._file.with_suffix(".lock")):
            state = self.running()
            if state is not None:
                self._kill(state)
            if self._process is not None:
                self._process.poll()  # it is gone; without this, Popen would not know
            self._file.unlink(missing_ok=True)
            return state is not None

    def _launch(self, uri: str, port: int) -> ServerState:
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            process = self._process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "mlflow", "server"),
                    *("--host", _HOST, "--port", str(port), "--workers", "1"),
                    # Experiments made in the interface keep files behind the server, in the
                    # same folder; ours have absolute locations, which it reads directly.
                    *("--artifacts-destination", self._workspace.artifacts.resolve().as_uri()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(uri),
                cwd=self._workspace.state,
                start_new_session=True,
            )
        try:
            started = psutil.Process(process.pid).create_time()
        except psutil.Error:
            started = 0.0
        state = ServerState(f"http://{_HOST}:{port}", process.pid, started, redact(uri))
        try:
            self._await(process, state)
        except BaseException:  # Ctrl-C among them: it is nobody's yet, and would stay
            self._kill(state)
            process.poll()
            raise
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(asdict(state)), "utf-8")
        part.replace(self._file)
        return state

    def _await(self, process: subprocess.Popen[bytes], state: ServerState) -> None:
        deadline = time.monotonic() + _START_S
        while not _healthy(state.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise TrackingError(
                    f"the MLflow server did not start: {self._last_words()}",
                    where=str(self.log),
                    next_step=f"read {self.log}, or choose another port (`mlflow_port`)",
                )
            time.sleep(0.1)

    def _environment(self, uri: str) -> dict[str, str]:
        environ = {name: os.environ[name] for name in _PASSED if name in os.environ}
        # In the environment and not among the arguments, which everybody on the machine can read.
        environ["MLFLOW_BACKEND_STORE_URI"] = uri
        environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
        environ["PYTHONUNBUFFERED"] = "1"
        quiet(environ)
        return environ

    def _last_words(self) -> str:
        try:
            lines = self.log.read_text("utf-8", "replace").strip().splitlines()
        except OSError:
            return "its log cannot be read"
        return redact(lines[-1]) if lines else "it said nothing"

    @staticmethod
    def _kill(state: ServerState) -> None:
        """End the process group: first asked, then made to."""
        for sign in (signal.SIGTERM, signal.SIGKILL):
            process = _process(state)
            if process is None:
                return
            try:
                os.killpg(state.pid, sign)
            except ProcessLookupError:
                return
            deadline = time.monotonic() + _STOP_S
            while is_alive(process) and time.monotonic() < deadline:
                time.sleep(0.05)


def _process(state: ServerState) -> psutil.Process | None:
    """Return the process if it is still the one that was started: pids are given out again."""
    try:
        process = psutil.Process(state.pid)
        same = abs(process.create_time() - state.started) < 1.0
        return process if same and is_alive(process) else None
    except (psutil.Error, ValueError):
        return None


def _free_port(wanted: int) -> int:
    """Return the wanted port, or any free one for 0.

    Raises:
        TrackingError: The wanted port is in use.  Without this look, the answer of the server
            that uses it would be taken for the start of ours.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, wanted))
        except OSError as error:
            raise TrackingError(
                f"port {wanted} is in use",
                where=f"{_HOST}:{wanted}",
                next_step="choose another port, or 0 for a free one (`mlflow_port`)",
            ) from error
        return int(probe.getsockname()[1])


def _healthy(url: str) -> bool:
    parts = urlsplit(url)
    opened = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = opened(parts.hostname or _HOST, parts.port, timeout=2)
    try:
        connection.request("GET", f"{parts.path}/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
