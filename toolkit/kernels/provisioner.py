"""The provisioner that jupyter_client finds under :data:`toolkit.kernels.PROVISIONER_NAME`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Dict, Float, Integer, List, Unicode

from toolkit.isolation import Enclosure
from toolkit.kernels.enclosing import enclosure
from toolkit.kernels.plan import KernelPlan
from toolkit.kernels.zygotes import ColdStart, WarmKernel, WarmRequest, Zygote
from toolkit.values import IsolationLevel

__all__ = ["ToolkitProvisioner"]

_LAUNCHER = ["-m", "ipykernel_launcher"]
_NAP_S = 0.005


class ToolkitProvisioner(LocalProvisioner):  # type: ignore[misc]  # the vendor is untyped here
    """Starts a kernel warm where a zygote serves, and cold where none does.

    Its traits are the members of ``kernel_provisioner.config`` in a kernelspec; see
    :class:`KernelPlan`.

    Attributes:
        python: The environment's interpreter; empty: the first word of the kernel's command.
        notes: What a reader must know of the start: why it was cold, what of the level is missing.
    """

    python = Unicode("")
    level = Integer(0)
    caps = Dict()
    readable = List()
    hidden = List()
    warm = Bool(default_value=False)
    zygotes = Unicode("")
    wait_s = Float(0.0)
    notes: tuple[str, ...] = ()
    process: Any = None
    _enclosure: Enclosure | None = None
    _own: Path | None = None

    @property
    def plan(self) -> KernelPlan:
        """The plan that the kernelspec names."""
        return KernelPlan.from_config(
            {name: getattr(self, name) for name in KernelPlan().to_config()}
        )

    @property
    def started_warm(self) -> bool:
        """Whether the kernel that runs was forked."""
        return isinstance(self.process, WarmKernel)

    def oom_killed(self) -> bool:
        """Whether something of this kernel was killed for memory, as far as its enclosure knows."""
        return self._enclosure is not None and self._enclosure.oom_killed()

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose how the kernel is spoken with, and write its connection file.

        From L2 on it has a network of its own, so nothing outside reaches its ports.  JupyterLab and
        nbval ask for ports, and keep the connection files of all kernels in one folder: there the
        kernel gets unix sockets, and its file, in a folder of its own.
        """
        manager = self.parent
        if manager is not None and manager.transport == "tcp" and self.level >= IsolationLevel.L2:
            self._own = Path(tempfile.mkdtemp(prefix="toolkit-"))
            manager.cache_ports = False
            manager.transport = "ipc"
            manager.ip = str(self._own / "z")
            manager.connection_file = str(self._own / "kernel.json")
        return dict(await super().pre_launch(**kwargs))

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel's process.

        Raises:
            OSError: The interpreter cannot be started.
            ConfigurationError, InfrastructureError: The level of isolation is not to be had.
        """
        self._release()
        self.notes = ()
        kwargs["env"] = dict(kwargs.get("env") or os.environ)
        kwargs["cwd"] = str(kwargs.get("cwd") or Path.cwd())
        try:
            self._enclose(Path(self.python or cmd[0]), kwargs)
            return await self._launch(cmd, kwargs)
        except BaseException:
            self._release()
            raise

    async def _launch(self, cmd: list[str], kwargs: dict[str, Any]) -> KernelConnectionInfo:
        try:
            kernel = await asyncio.to_thread(self._fork, cmd, kwargs)
        except ColdStart as reason:
            if self.warm:
                self.notes += (f"the kernel was started cold: {reason}",)
                self.log.info(self.notes[-1])
            if self._enclosure is not None:
                cmd = self._enclosure.command(cmd)
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        self.cwd = kwargs["cwd"]
        return self.connection_info

    def _enclose(self, python: Path, kwargs: dict[str, Any]) -> None:
        plan = self.plan
        if plan.level < IsolationLevel.L1:
            return
        self._enclosure = enclosure(
            plan, python, Path(kwargs["cwd"]), kwargs["env"], self._private_folders()
        )
        self._enclosure.open()
        self.notes += self._enclosure.notes
        kwargs["env"] = self._enclosure.environment(kwargs["env"])

    def _private_folders(self) -> tuple[Path, ...]:
        """Where the connection file and the sockets are."""
        manager = self.parent
        if manager is None:
            return ()
        folders = [Path(manager.connection_file).absolute().parent]
        if manager.transport == "ipc":
            folders.append(Path(manager.ip).absolute().parent)
        return tuple(dict.fromkeys(folders))

    def _fork(self, cmd: list[str], kwargs: dict[str, Any]) -> WarmKernel:
        plan = self.plan
        if not plan.warm or plan.zygotes is None:
            raise ColdStart("zygotes have no place")
        if cmd[1:3] != _LAUNCHER:
            raise ColdStart("its command is not ipykernel's")
        # The keeper ends the kernel; the number of a parent would be that of a stranger.
        environment = {n: v for n, v in kwargs["env"].items() if n != "JPY_PARENT_PID"}
        zygote = Zygote(plan.zygotes, Path(self.python or cmd[0]), environment)
        with _outputs(kwargs) as (stdout, stderr):
            request = WarmRequest(
                argv=tuple(cmd[3:]),
                env=environment,
                cwd=kwargs["cwd"],
                stdout=stdout,
                stderr=stderr,
                ticket=self._enclosure.ticket().to_json() if self._enclosure else None,
            )
            return zygote.fork(request, plan.wait_s)

    async def wait(self) -> int | None:
        """Return how the kernel's process ended, as soon as it has."""
        if self.process is None:
            return 0
        while (code := self.process.poll()) is None:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(_NAP_S)
        self._release()
        self.process = None
        return int(code)

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the kernel; its keeper ends what is left of it."""
        self._release()
        await super().cleanup(restart=restart)
        if self._own is not None and not restart:
            shutil.rmtree(self._own, ignore_errors=True)
            self._own = None

    def _release(self) -> None:
        if isinstance(self.process, WarmKernel):
            self.process.release()
        if self._enclosure is not None:
            self._enclosure.close()
            self._enclosure = None


@contextmanager
def _outputs(kwargs: dict[str, Any]) -> Iterator[tuple[int, int]]:
    """Turn the outputs of :class:`subprocess.Popen` into descriptors.

    Raises:
        ColdStart: One of them is a pipe, which only a child of this process can have.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        stdout = _descriptor(kwargs.get("stdout"), sys.__stdout__, nowhere)
        if kwargs.get("stderr") == subprocess.STDOUT:
            yield stdout, stdout
        else:
            yield stdout, _descriptor(kwargs.get("stderr"), sys.__stderr__, nowhere)
    finally:
        os.close(nowhere)


def _descriptor(target: Any, inherited: Any, nowhere: int) -> int:
    if target == subprocess.PIPE:
        raise ColdStart("its output goes into a pipe")
    if target == subprocess.DEVNULL:
        return nowhere
    if isinstance(target, int):
        return target
    try:
        return int((target or inherited).fileno())
    except (AttributeError, OSError, ValueError):  # a process without that output
        return nowhere
