"""An enclosure: made before a kernel starts, gone with everything in it when the run ends."""

from __future__ import annotations

import errno
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from toolkit.errors import ConfigurationError, InfrastructureError
from toolkit.isolation.bubblewrap import (
    CLEAN_ENVIRONMENT,
    INSTALL,
    RELAY_INSIDE,
    arguments,
    program,
)
from toolkit.isolation.groups import GROUPS, ControlGroup
from toolkit.isolation.inside import enter_with, start_time
from toolkit.isolation.seccomp import system_call_filter
from toolkit.isolation.spec import EnclosureSpec, Ticket, process_limits
from toolkit.values import IsolationLevel

__all__ = ["Enclosure", "enter"]

_START_S = 30.0
_END_S = 5.0
_READY = b"ready\n"
# Means nothing inside, or tells about the machine.
_LEFT_OUT = frozenset({"JPY_PARENT_PID", "OLDPWD", "PWD", "SHLVL", "DBUS_SESSION_BUS_ADDRESS"})
_LEFT_OUT_PREFIX = "XDG_"


def enter(ticket: Ticket, keep: Collection[int] = ()) -> None:
    """Confine this freshly forked, single-threaded process as an enclosure's ticket says.

    From L2 on it returns in a *child* that is process and root of nothing outside; the caller's
    process stands by as its image: it ends as the child ends, passes SIGTERM and SIGHUP on, and
    takes the child with it when it is killed.  The child has no capability, cannot be traced by
    others inside, and has the limits, control group and filter of system calls of the ticket.

    Args:
        ticket: From :meth:`Enclosure.ticket`.
        keep: Open files that stay open beside 0, 1 and 2.

    Raises:
        InfrastructureError: A step failed.  The caller must end at once: it may stand half inside.
    """
    try:
        enter_with(ticket.to_json(), keep)
    except OSError as error:
        raise InfrastructureError(
            f"the enclosure cannot be entered: {error.strerror or error}", where="isolation"
        ) from error


class Enclosure:
    """Where one run's kernel lives, at one level.

    At L0 it is nothing; at L1 limits; from L2 on namespaces that a small process holds until
    :meth:`close`.  Everything inside dies with that process, which dies with this one.

    Attributes:
        spec: What it is made of.
        notes: What the machine did not give, one sentence each.

    Args:
        groups: Where control groups are mounted.
    """

    def __init__(self, spec: EnclosureSpec, groups: Path = GROUPS) -> None:
        self.spec = spec
        self._groups = groups
        self.notes: tuple[str, ...] = ()
        self._holder: _Holder | None = None
        self._group: ControlGroup | None = None
        self._ticket: Ticket | None = None

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def level(self) -> IsolationLevel:
        """The level it was made for."""
        return self.spec.level

    @property
    def pid(self) -> int | None:
        """Number of the process that holds the namespaces; ``None`` below L2."""
        return None if self._holder is None else self._holder.pid

    def open(self) -> Self:
        """Make it.

        Raises:
            ConfigurationError: Bubblewrap is missing or may not make namespaces here, no control
                group can be made for L3, or the specification would let out too much.
            InfrastructureError: It did not start in time.
        """
        spec = self.spec
        if spec.level >= IsolationLevel.L2:
            spec.check()
        program_bytes = system_call_filter(spec.level)
        if spec.level >= IsolationLevel.L1:
            hardened = spec.level >= IsolationLevel.L3
            self._group = ControlGroup.make(spec.caps, self._groups, whole=hardened)
            if hardened and (self._group is None or not self._group.whole):
                self.close()
                raise _no_group()
            self.notes = tuple(self._missing())
        try:
            if spec.level >= IsolationLevel.L2:
                self._holder = _Holder(spec, program_bytes)
        except BaseException:
            self.close()
            raise
        group = self._group
        self._ticket = Ticket(
            level=int(spec.level),
            holder=self._holder.pid if self._holder else 0,
            holder_started=self._holder.started if self._holder else 0,
            folder=str(spec.work),
            limits=process_limits(
                spec.caps,
                spec.level,
                grouped=group is not None and group.processes is not None,
            ),
            groups=() if group is None else tuple(map(str, group.entrances)),
            filter=program_bytes.hex(),
            uid=spec.uid,
            gid=spec.gid,
        )
        return self

    def close(self) -> None:
        """End everything inside, at once, and remove what was made.  Twice is fine."""
        self._ticket = None
        if self._holder is not None:
            self._holder.end()
            self._holder = None
        if self._group is not None and not self._group.remove():
            self.notes = (*self.notes, f"the control group {self._group.folders[0]} is left over")

    def ticket(self) -> Ticket:
        """Return what a process needs to enter.

        Raises:
            InfrastructureError: The enclosure is not open.
        """
        if self._ticket is None:
            raise InfrastructureError("the enclosure is not open", where="isolation")
        return self._ticket

    def command(self, argv: Sequence[str]) -> list[str]:
        """Return the command that runs ``argv`` inside; at L0 ``argv`` itself.

        The process that is started stays outside as the image of the one inside: it ends with
        the same code or signal, and killing it kills the other.
        """
        if self.level is IsolationLevel.L0:
            return list(argv)
        inside = str(Path(__file__).with_name("inside.py"))
        ticket = json.dumps(self.ticket().to_json(), separators=(",", ":"))
        return [sys.executable, "-I", "-S", inside, ticket, "--", *argv]

    def environment(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Return variables that fit inside; below L2 they stay as they are.

        ``HOME`` and ``TMPDIR`` become the private ``/tmp``; what names the machine's own
        sessions is left out.
        """
        if self.level < IsolationLevel.L2:
            return dict(variables)
        kept = {
            name: value
            for name, value in variables.items()
            if name not in _LEFT_OUT and not name.startswith(_LEFT_OUT_PREFIX)
        }
        own = "/tmp"  # noqa: S108 - inside, where it is private
        return {**kept, "HOME": own, "TMPDIR": own, "USER": "kernel", "LOGNAME": "kernel"}

    def oom_killed(self) -> bool:
        """Whether something inside was killed for memory; only a control group can tell."""
        return self._group is not None and self._group.oom_kills() > 0

    def _missing(self) -> list[str]:
        caps, group = self.spec.caps, self._group
        found = []
        if caps.memory_bytes is not None and (group is None or group.memory is None):
            found.append(
                "memory is limited for each process, not for all of them together: "
                "no control group can be made here"
            )
        if caps.processes is not None and (group is None or group.processes is None):
            user = "root has no limit of processes" if os.getuid() == 0 else "by resource limits"
            found.append(f"processes are counted without a control group: {user}")
        return found


class _Holder:
    """Bubblewrap, and inside of it the relay that holds the namespaces."""

    def __init__(self, spec: EnclosureSpec, program_bytes: bytes) -> None:
        self.pid = 0
        self.started = 0
        self._files: list[int] = []
        self._done = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start(spec, program_bytes)
        except BaseException:
            self.end()
            raise
        finally:
            for descriptor in self._files:
                os.close(descriptor)

    def _start(self, spec: EnclosureSpec, program_bytes: bytes) -> None:
        told_out, told_in = os.pipe()
        said = self._file("said", b"")
        self._files += [told_out, told_in]
        options = arguments(spec, lambda name, body: str(self._file(name, body)))
        if program_bytes:
            options += ["--seccomp", str(self._file("filter", program_bytes))]
        # Relay and port stand even where nothing is to be reached: the process must hold.
        socket = str(spec.gateway_socket or "")
        port = str(spec.relay_port if spec.gateway_socket else 0)
        command = [program(), *options, "--info-fd", str(told_in), "--"]
        command += [str(spec.python), "-I", "-S", RELAY_INSIDE, port, socket]
        process = self._in_keeper(lambda: self._spawn(command, spec, said))
        self._process = process
        os.set_blocking(told_out, False)
        os.close(told_in)
        self._files.remove(told_in)
        self._await_ready(process, said)
        self.pid = _child_pid(told_out)
        self.started = start_time(self.pid)

    def _spawn(self, command: list[str], spec: EnclosureSpec, said: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env=CLEAN_ENVIRONMENT,
            cwd="/",
            pass_fds=tuple(self._files),
            start_new_session=True,
            user=spec.uid,
            group=spec.gid,
            extra_groups=None if spec.uid is None else (),
        )

    def _in_keeper(self, spawn: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
        """Start a process from a thread that lives as long: PR_SET_PDEATHSIG follows the thread."""
        if threading.current_thread() is threading.main_thread():
            return spawn()
        answers: list[subprocess.Popen[bytes] | BaseException] = []
        given = threading.Event()

        def keep() -> None:
            try:
                answers.append(spawn())
            except BaseException as error:  # noqa: BLE001 - raised in the other thread
                answers.append(error)
            given.set()
            self._done.wait()

        threading.Thread(target=keep, name="enclosure", daemon=True).start()
        given.wait()
        if isinstance(answers[0], BaseException):
            raise answers[0]
        return answers[0]

    def _file(self, name: str, body: str | bytes) -> int:
        """Keep bytes in a file without a name, for a program that reads from its descriptor."""
        descriptor = os.memfd_create(name)
        self._files.append(descriptor)
        os.write(descriptor, body.encode() if isinstance(body, str) else body)
        os.lseek(descriptor, 0, os.SEEK_SET)
        return descriptor

    def _await_ready(self, process: subprocess.Popen[bytes], said: int) -> None:
        output = process.stdout
        if output is None:  # pragma: no cover - it was asked for
            return
        heard, deadline = b"", time.monotonic() + _START_S
        with selectors.DefaultSelector() as selector:
            selector.register(output, selectors.EVENT_READ)
            while not heard.startswith(_READY):
                left = deadline - time.monotonic()
                if left <= 0 or not selector.select(left):
                    raise InfrastructureError(
                        f"the enclosure did not start within {_START_S:g} s", where="isolation"
                    )
                data = os.read(output.fileno(), 64)
                if not data:
                    process.wait(_END_S)
                    raise _refused(os.pread(said, 2_000, 0).decode("utf-8", "replace"))
                heard += data

    def end(self) -> None:
        """Kill the holder, and with it everything in its namespaces."""
        process = self._process
        if process is not None:
            # Process 1 first: the system ends all others inside before bubblewrap hears of it.
            with suppress(OSError):
                if self.pid and start_time(self.pid) == self.started:
                    os.kill(self.pid, signal.SIGKILL)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
            try:
                process.wait(_END_S if self.pid else 0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._done.set()


def _child_pid(told: int) -> int:
    try:
        return int(json.loads(os.read(told, 4_096))["child-pid"])
    except (OSError, ValueError, KeyError) as error:
        raise InfrastructureError(
            "bubblewrap did not say which process it started", where="isolation"
        ) from error


def _no_group() -> ConfigurationError:
    return ConfigurationError(
        "no control group for memory and processes can be made here, and L3 is both: its filter of"
        " system calls and the group",
        where="isolation",
        next_step=(
            "delegate one (systemd-run --user --scope -p Delegate=yes …, or Delegate=yes in the"
            " service; in a container, a writable /sys/fs/cgroup), or ask for L2"
        ),
    )


def _refused(said: str) -> ConfigurationError:
    last = [line for line in said.splitlines() if line.strip()]
    reason = last[-1].removeprefix("bwrap: ")[:300] if last else "it said nothing"
    return ConfigurationError(
        f"bubblewrap cannot isolate a kernel here: {reason}",
        where="isolation",
        next_step=(
            "allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1, "
            "kernel.apparmor_restrict_unprivileged_userns=0; in a container, its seccomp profile), "
            f"or {INSTALL}"
        ),
        details={"errno": errno.EPERM},
    )
