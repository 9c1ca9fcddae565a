"""One fresh kernel: its specification, its private sockets, its environment, its client."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.client import gateway_address, sdk_environment, wire
from toolkit.errors import InfrastructureError, UsageError
from toolkit.execution.facts import Execution
from toolkit.execution.processes import MARK, mark_of
from toolkit.execution.vendors import (
    MAXMSGSIZE,
    RECONNECT_IVL,
    AsyncKernelClient,
    AsyncKernelManager,
    Context,
    KernelSpecManager,
)
from toolkit.kernels import kernel_spec, write_kernel_spec
from toolkit.values import Environment

__all__ = [
    "KERNEL_NAME",
    "Place",
    "kernel_environment",
    "kernel_manager",
    "make_place",
    "until_ready",
]

KERNEL_NAME = "toolkit"
_ARGUMENTS = (
    "--HistoryManager.hist_file=:memory:",
    # `!false` and `x = !false` raise, as `%%bash` does by itself (IPython 9.4 and later; for an
    # older one the runner looks at `_exit_code` after each cell).
    "--InteractiveShell.system_raise_on_error=True",
)
# Under the production policy: who opens the files of an evaluation set is refused and recorded.
# Who installs packages is refused.
_GUARD = (
    "(lambda client, shell: (client.guard_labels(shell), client.guard_installs(shell)) and None)"
    "(__import__('toolkit.client').client, get_ipython())"
)
# What a production kernel's own programs find when they install packages: no index.
_NO_INDEX = {"PIP_NO_INDEX": "1", "UV_OFFLINE": "1", "CONDA_OFFLINE": "1"}
_RECONNECT_MS = 5
# How often a starting kernel is looked for, and after how many looks it is asked again.
_LOOK_MS = 5
_ASK_AGAIN = 4
# sun_path of unix(7) holds 107 bytes and a terminating zero; "-5" names the last socket.
_MAX_SOCKET_STEM = 105
# MAX_ARG_STRLEN of execve(2) is 128 KiB for one variable.
_MAX_VARIABLE_BYTES = 120_000
# Names that may pass from the runner; all others, keys and tokens above all, stay behind.
_ALLOWED = frozenset({"HOME", "LANG", "LANGUAGE", "LOGNAME", "SHELL", "TMPDIR", "TZ", "USER"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where the kernel's private files are, all of them removed after the run.

    Attributes:
        folder: Specification, connection file with the message key, IPython's profile.
        sockets: Folder of the sockets; another one where ``folder`` is too long for a socket.
        log: What the kernel's process wrote outside of cells; stays in the run's folder.
    """

    folder: Path
    sockets: Path
    log: Path

    def remove(self) -> None:
        """Remove what the kernel needed; an empty log as well."""
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.rmtree(self.sockets, ignore_errors=True)
        if self.log.is_file() and not self.log.stat().st_size:
            self.log.unlink()


def make_place(folder: Path) -> Place:
    """Create the private folders of a kernel inside the run's folder.

    Raises:
        InfrastructureError: No folder is short enough for a unix socket.
    """
    home = folder / "kernel"
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    sockets = home
    if len(os.fsencode(home / "z")) > _MAX_SOCKET_STEM:
        sockets = Path(tempfile.mkdtemp(prefix="toolkit-"))
        if len(os.fsencode(sockets / "z")) > _MAX_SOCKET_STEM:
            sockets.rmdir()
            raise InfrastructureError(
                f"{tempfile.gettempdir()} is too long a path for a unix socket",
                where="TMPDIR",
                next_step="set TMPDIR to a folder with a short path, such as /tmp",
            )
    return Place(home, sockets, folder / "kernel.log")


def kernel_environment(
    execution: Execution, place: Place, runner: Mapping[str, str]
) -> dict[str, str]:
    """Return the kernel's whole environment.

    Args:
        execution: What to run.
        place: The kernel's private folders.
        runner: The runner's environment, of which only an allow-list passes.

    Raises:
        UsageError: The parameters do not fit into an environment variable.
    """
    parameters = json.dumps(dict(execution.parameters))
    if len(parameters) > _MAX_VARIABLE_BYTES:
        raise UsageError(
            f"the parameters take {len(parameters)} bytes, more than {_MAX_VARIABLE_BYTES}",
            where="parameters",
            next_step="put large values into a file or a table and pass its name",
        )
    passed = {
        name: value for name, value in runner.items() if name in _ALLOWED or name.startswith("LC_")
    }
    path = runner.get("PATH", os.defpath)
    return {
        **passed,
        **_gateway_variables(execution),
        **(_NO_INDEX if execution.run.environment is Environment.PRODUCTION else {}),
        "PATH": f"{execution.python.parent}{os.pathsep}{path}",
        "IPYTHONDIR": str(place.folder / "ipython"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        wire.ENV_TOKEN: execution.token,
        wire.ENV_RUN: execution.run.run_id,
        wire.ENV_PARAMETERS: parameters,
        MARK: mark_of(execution.ledger, execution.run.run_id),
    }


def _gateway_variables(execution: Execution) -> dict[str, str]:
    """Where the toolkit's client, and unmodified SDKs, find the gateway."""
    if execution.gateway_socket is None:
        return {}
    socket = str(execution.gateway_socket)
    address = gateway_address(socket)
    sdks = sdk_environment(address, execution.token) if address else {}
    return {wire.ENV_SOCKET: socket, **sdks}


class CellClient(AsyncKernelClient):  # type: ignore[misc]  # the vendor's classes are untyped here
    """A kernel client that tells the kernel which cell it runs, as JupyterLab does.

    Attributes:
        cell_id: Sent as ``metadata.cellId`` with each request to execute.
    """

    cell_id: str | None = None

    def __init__(self, **kwargs: Any) -> None:
        # The manager's context has our socket options; a client's own would not have them.
        super().__init__(context=kwargs["parent"].context, **kwargs)

    def execute(
        self,
        code: str,
        silent: bool = False,
        store_history: bool = True,
        user_expressions: dict[str, str] | None = None,
        *,
        allow_stdin: bool | None = None,
        stop_on_error: bool = True,
    ) -> str:
        """Send ``execute_request`` of the Jupyter messaging protocol; return its message id."""
        content = {
            "code": code,
            "silent": silent,
            "store_history": store_history,
            "user_expressions": user_expressions or {"shell": "globals().get('_exit_code', 0)"},
            "allow_stdin": bool(allow_stdin),
            "stop_on_error": stop_on_error,
        }
        message = self.session.msg("execute_request", content, metadata={"cellId": self.cell_id})
        self.shell_channel.send(message)
        return str(message["header"]["msg_id"])


def kernel_manager(execution: Execution, place: Place) -> Any:
    """Return a manager of one kernel over unix sockets, whatever kernel the notebook names."""
    write_kernel_spec(
        place.folder / "kernels" / KERNEL_NAME,
        kernel_spec(execution.python, execution.kernel, _arguments(execution)),
    )
    context = Context()
    # Defaults for the sockets made from this context: libzmq drops larger messages unread, and
    # waits a tenth of a second before it looks for the kernel's sockets again.
    context.setsockopt(MAXMSGSIZE, execution.limits.message_bytes)
    context.setsockopt(RECONNECT_IVL, _RECONNECT_MS)
    return AsyncKernelManager(
        kernel_name=KERNEL_NAME,
        kernel_spec_manager=KernelSpecManager(
            kernel_dirs=[str(place.folder / "kernels")], ensure_native_kernel=False
        ),
        client_factory=CellClient,
        context=context,
        transport="ipc",
        ip=str(place.sockets / "z"),
        connection_file=str(place.folder / "connection.json"),
    )


def _arguments(execution: Execution) -> tuple[str, ...]:
    if execution.run.environment is not Environment.PRODUCTION:
        return _ARGUMENTS
    return (*_ARGUMENTS, f"--IPKernelApp.exec_lines={_GUARD}")


async def until_ready(
    client: CellClient, is_alive: Callable[[], Awaitable[bool]], timeout_s: float
) -> None:
    """Return as soon as a kernel answers and what it publishes is heard.

    What a kernel publishes before its subscriber is connected is lost, so it is asked again until
    something arrives on that channel, too.

    Raises:
        RuntimeError: It ended, or did not answer within ``timeout_s`` seconds.
    """
    deadline = time.monotonic() + timeout_s
    asked = answered = heard = False
    while not (answered and heard):
        if answered or not asked:  # a request waits for a socket that is not there yet
            asked = bool(client.kernel_info())
        for _ in range(_ASK_AGAIN):
            answered = answered or await client.shell_channel.socket.poll(_LOOK_MS) > 0
            heard = heard or await client.iopub_channel.socket.poll(_LOOK_MS) > 0
            if answered and heard:
                return
        if not await is_alive():
            raise RuntimeError("the kernel ended before it answered")
        if time.monotonic() > deadline:
            raise RuntimeError(f"the kernel did not answer within {timeout_s:g} s")
