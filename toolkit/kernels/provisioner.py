"""The provisioner that jupyter_client finds under :data:`toolkit.kernels.PROVISIONER_NAME`."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Bool, Dict, Float, Integer, Unicode

from toolkit.kernels.plan import KernelPlan
from toolkit.kernels.zygotes import ColdStart, WarmKernel, WarmRequest, Zygote

__all__ = ["ToolkitProvisioner"]

_LAUNCHER = ["-m", "ipykernel_launcher"]
_NAP_S = 0.005


class ToolkitProvisioner(LocalProvisioner):  # type: ignore[misc]  # the vendor is untyped here
    """Starts a kernel warm where a zygote serves, and cold where none does.

    Its traits are the members of ``kernel_provisioner.config`` in a kernelspec; see
    :class:`KernelPlan`.

    Attributes:
        python: The environment's interpreter; empty: the first word of the kernel's command.
        note: Why the kernel was started cold although a warm one was asked for, one sentence.
    """

    python = Unicode("")
    level = Integer(0)
    caps = Dict()
    warm = Bool(default_value=False)
    zygotes = Unicode("")
    wait_s = Float(0.0)
    note: str | None = None
    process: Any = None

    @property
    def plan(self) -> KernelPlan:
        """The plan that the kernelspec names."""
        return KernelPlan.from_config(
            {name: getattr(self, name) for name in ("level", "caps", "warm", "zygotes", "wait_s")}
        )

    @property
    def started_warm(self) -> bool:
        """Whether the kernel that runs was forked."""
        return isinstance(self.process, WarmKernel)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> KernelConnectionInfo:
        """Start the kernel's process.

        Raises:
            OSError: The interpreter cannot be started.
        """
        self._release()
        self.note = None
        try:
            kernel = await asyncio.to_thread(self._fork, cmd, kwargs)
        except ColdStart as reason:
            if self.warm:
                self.note = f"the kernel was started cold: {reason}"
                self.log.info(self.note)
            return await super().launch_kernel(cmd, **kwargs)
        self.process, self.pid, self.pgid = kernel, kernel.pid, kernel.pid
        self.cwd = kwargs.get("cwd") or Path.cwd()
        return self.connection_info

    def _fork(self, cmd: list[str], kwargs: dict[str, Any]) -> WarmKernel:
        plan = self.plan
        if not plan.warm or plan.zygotes is None:
            raise ColdStart("no zygotes have a place")
        if cmd[1:3] != _LAUNCHER:
            raise ColdStart("its command is not ipykernel's")
        environment = dict(kwargs.get("env") or os.environ)
        # The keeper ends the kernel; the number of a parent would be that of a stranger.
        environment.pop("JPY_PARENT_PID", None)
        zygote = Zygote(plan.zygotes, Path(self.python or cmd[0]), environment)
        with _outputs(kwargs) as (stdout, stderr):
            request = WarmRequest(
                argv=tuple(cmd[3:]),
                env=environment,
                cwd=str(kwargs.get("cwd") or Path.cwd()),
                stdout=stdout,
                stderr=stderr,
            )
            return zygote.fork(request, plan.wait_s)

    async def wait(self) -> int | None:
        """Return how the kernel's process ended, as soon as it has."""
        if self.process is None:
            return 0
        while (code := self.process.poll()) is None:  # noqa: ASYNC110 - a process sets no event
            await asyncio.sleep(_NAP_S)
        self._release()
        if self.process is not None:
            self.process.wait()
        self.process = None
        return int(code)

    async def cleanup(self, restart: bool = False) -> None:
        """Let go of the kernel; its keeper ends what is left of it."""
        self._release()
        await super().cleanup(restart=restart)

    def _release(self) -> None:
        if isinstance(self.process, WarmKernel):
            self.process.release()


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
