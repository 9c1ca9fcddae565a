"""Processes that people look at: JupyterLab, MLflow's UI, the worker, started and ended together."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toolkit.app.isolating import zygote_folder
from toolkit.app.own_secrets import OwnSecrets
from toolkit.client import ensure_gateway
from toolkit.errors import InfrastructureError
from toolkit.kernels import KernelPlan, kernel_spec, write_kernel_spec
from toolkit.settings import Workspace, stop_on_signals
from toolkit.tracing import MlflowServer

__all__ = ["Lab", "lab_environment", "run_lab"]

_START_S = 60.0
_KEPT = ("JUPYTER_", "TOOLKIT_")
"""Prefixes of variables that are Jupyter's and our own, whatever they hold."""


@dataclass
class Lab:
    """A running JupyterLab with its neighbours.

    Attributes:
        process: JupyterLab's process.
        lab_url: Its address, with the token.
        mlflow_url: MLflow's address.
        socket: The gateway's socket.
        server: MLflow's server; ``owned`` when this command started it.
    """

    process: subprocess.Popen[bytes]
    lab_url: str
    mlflow_url: str
    socket: str
    server: MlflowServer
    owned: bool

    def wait(self) -> int:
        """Wait until JupyterLab ends or a signal arrives; then end what was started."""
        stop = stop_on_signals()
        while self.process.poll() is None and not stop.wait(0.3):
            pass
        self.close()
        return 0

    def close(self) -> None:
        """End JupyterLab, its kernels, and the MLflow server if it was started here."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(5)
        if self.owned:
            self.server.stop()


def run_lab(workspace: Workspace, *, port: int, browser: bool, extra: list[str]) -> Lab:
    """Start the gateway, MLflow's UI and JupyterLab, and return when the first two answer.

    Provider keys stay with the gateway: JupyterLab and its kernels do not inherit them.
    """
    path = ensure_gateway(workspace.root)
    server = MlflowServer(workspace)
    owned = server.url() is None
    url = server.start()
    token = secrets.token_urlsafe(24)
    chosen = port or _free_port()
    config = workspace.state / "jupyter"
    config.mkdir(mode=0o700, exist_ok=True)
    settings = config / "jupyter_server_config.json"
    # In a file of mode 0600 and not on the command line, which every user of the machine can read.
    handle = os.open(settings, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(
            {
                "IdentityProvider": {"token": token},
                "ServerApp": {"ip": "127.0.0.1"},
                # No question at the first start, and no request to the internet.
                "LabApp": {
                    "news_url": None,
                    "check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
                },
            },
            file,
        )
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--config={settings}",
        f"--ServerApp.port={chosen}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={workspace.root}",
        *([] if browser else ["--no-browser"]),
        *(["--allow-root"] if os.geteuid() == 0 else []),
        *extra,
    ]
    environment = lab_environment(workspace, os.environ)
    paths = (str(_write_kernels(workspace)), environment.get("JUPYTER_PATH", ""))
    environment["JUPYTER_PATH"] = os.pathsep.join(path for path in paths if path)
    log = workspace.state / "logs" / "lab.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            command,
            cwd=workspace.root,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    notebooks = "/tree/notebooks" if (workspace.root / "notebooks").is_dir() else ""
    address = f"http://127.0.0.1:{chosen}/lab{notebooks}?token={token}"
    return _answering(Lab(process, address, url, path, server, owned), chosen, log)


def _answering(lab: Lab, port: int, log: Path) -> Lab:
    try:
        _await_port(lab.process, port, log)
    except BaseException:  # Ctrl-C among them: nobody else would end what was started
        lab.close()
        raise
    return lab


def lab_environment(workspace: Workspace, environ: Mapping[str, str]) -> dict[str, str]:
    """Return what JupyterLab and its kernels inherit: no credential, which are the gateway's."""
    secret = OwnSecrets(environ, workspace.registry).variables()
    return {n: v for n, v in environ.items() if n not in secret or n.startswith(_KEPT)}


def _write_kernels(workspace: Workspace) -> Path:
    """Write the kernelspec ``toolkit`` where only this JupyterLab looks; return the data folder."""
    data = workspace.state / "jupyter" / "data"
    plan = KernelPlan(warm=True, zygotes=zygote_folder(workspace))
    spec = kernel_spec(Path(sys.executable), plan, display_name="Python 3 (toolkit, warm)")
    write_kernel_spec(data / "kernels" / "toolkit", spec)
    return data


def _await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when JupyterLab answers.

    Raises:
        InfrastructureError: It ended, or did not answer within a minute.
    """
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise InfrastructureError(
        "JupyterLab did not start",
        where=str(log),
        next_step=f"read {log}, or choose another --port",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
