"""Going into an enclosure: the last steps of a process before a notebook's code may run in it.

Two uses of one path.  A warm kernel's freshly forked child calls :func:`enter`.  A cold kernel is
started through this file as a program, ``python -I -S inside.py TICKET -- COMMAND``, so the file
imports the standard library only.

Sources: namespaces(7), setns(2), user_namespaces(7), ioctl_ns(2), capabilities(7), prctl(2),
seccomp(2), getrlimit(2), keyctl(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import platform
import resource
import signal
import sys
from collections.abc import Callable, Collection
from typing import Any

__all__ = ["enter_with", "main", "start_time"]

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_PR_CAPBSET_DROP, _PR_SET_SECUREBITS = 24, 28
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_SECCOMP = 38, 47, 22
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_SECCOMP_MODE_FILTER = 2
# noroot, no_setuid_fixup, no_cap_ambient_raise, each with its lock.
_SECUREBITS = 0b11_00_11_11
_CAPABILITY_VERSION_3 = 0x20080522
_NS_GET_USERNS = 0xB701
_CLONE_NEWUSER = 0x10000000
_KEYCTL_JOIN_SESSION_KEYRING = 1
_KEYCTL = {"x86_64": 250, "aarch64": 219}
_MOST_CAPABILITIES = 64
_CANNOT_EXECUTE = 126
_FORWARDED = (signal.SIGTERM, signal.SIGHUP)

# Loaded before anything is entered: inside, this interpreter's files may be out of reach.
_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    """``struct sock_fprog`` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _prctl(what: str, option: int, *arguments: int) -> None:
    padded = (*arguments, 0, 0, 0, 0)[:4]
    _check(_libc.prctl(option, *padded), what)


def start_time(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22 of proc_pid_stat(5)).

    Raises:
        OSError: There is no such process.
    """
    with open(f"/proc/{pid}/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def enter_with(ticket: dict[str, Any], keep: Collection[int] = ()) -> None:
    """Confine this process as a ticket says; from L2 on, what returns is a child inside.

    The caller is single-threaded, has just been forked or started, and starts no thread before.
    From L2 on this process stays outside as the child's parent: it never returns, passes SIGTERM
    and SIGHUP on, ends as the child ended, and takes the child with it when it is killed.

    Args:
        ticket: The plain form of :class:`toolkit.isolation.Ticket`.
        keep: Open files that stay open beside 0, 1 and 2.

    Raises:
        OSError: A step failed.  The caller must end: it may stand half inside.
    """
    level = int(ticket["level"])
    if level == 0:
        return
    groups = [os.open(path, os.O_WRONLY | os.O_CLOEXEC) for path in ticket["groups"]]
    if level >= 2:
        _become(ticket["uid"], ticket["gid"])
        _join(int(ticket["holder"]), int(ticket["holder_started"]))
        _fork_inside()
    for group in groups:
        os.write(group, b"0")
        os.close(group)
    _limit(ticket["limits"])
    if level >= 2:
        os.chdir(ticket["folder"])
        _close_others({0, 1, 2, *keep})
        _fresh_keyring()
        _drop_capabilities()
    _prctl("no new privileges", _PR_SET_NO_NEW_PRIVS, 1)
    if ticket["filter"]:
        _load_filter(bytes.fromhex(ticket["filter"]))


def _become(uid: int | None, gid: int | None) -> None:
    """Be the enclosure's user before anything is entered: inside, no other user exists."""
    if uid is None or uid == os.getuid():
        return
    group = uid if gid is None else gid
    os.setgroups([])
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)


def _join(holder: int, started: int) -> None:
    """Enter every namespace of the holder, its user namespace last."""
    names = ("cgroup", "ipc", "uts", "net", "pid", "mnt")
    opened = {
        name: os.open(f"/proc/{holder}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        for name in (*names, "user")
        if os.path.exists(f"/proc/{holder}/ns/{name}")
    }
    if start_time(holder) != started:
        raise OSError(errno.ESRCH, "the enclosure has ended")
    # The other namespaces belong to the user namespace in which they were made; the holder's own
    # may be one below.  Who made the outer one has every right in it, root or not.
    owner = fcntl.ioctl(opened["mnt"], _NS_GET_USERNS)
    here = os.stat("/proc/self/ns/user").st_ino
    for name, descriptor in (("owner", owner), *opened.items()):
        same = name in {"owner", "user"} and os.fstat(descriptor).st_ino == here
        if not same:
            _check(_libc.setns(descriptor, 0), f"entering the namespace {name}")
        if name == "owner":
            here = os.fstat(descriptor).st_ino
        os.close(descriptor)


def _fork_inside() -> None:
    """Fork, as a process namespace holds children only; return in the child."""
    _prctl("non-dumpable", _PR_SET_DUMPABLE, 0)
    for number in _FORWARDED:
        signal.signal(number, signal.SIG_DFL)
    child = os.fork()
    if child:
        _stand_by(child)
    _prctl("death signal", _PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent is outside and has no number here, until it is dead and process 1 takes over.
    if os.getppid() != 0:
        os._exit(1)


def _stand_by(child: int) -> None:
    """Be the child's image outside until it ends, then end in the same way."""
    for number in _FORWARDED:
        signal.signal(number, _forward(child))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _close_others(set())
    with contextlib.suppress(OSError):
        _drop_capabilities()
    while True:
        try:
            _, status = os.waitpid(child, 0)
        except InterruptedError:
            continue
        except ChildProcessError:
            os._exit(1)
        break
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(OSError, ValueError):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


def _forward(child: int) -> Callable[[int, Any], None]:
    def send(number: int, _frame: Any) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, number)

    return send


def _limit(limits: dict[str, int]) -> None:
    for name, value in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        _, most = resource.getrlimit(kind)
        wanted = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (wanted, wanted))


def _close_others(kept: set[int]) -> None:
    first = 0
    for descriptor in sorted(kept):
        if first < descriptor:  # an empty range would be taken for all
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, max(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65_536))


def _fresh_keyring() -> None:
    """Leave the session's keyring, which namespaces do not separate."""
    number = _KEYCTL.get(platform.machine())
    result = -1 if number is None else _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None)
    if result < 0 and ctypes.get_errno() not in {errno.ENOSYS, errno.EPERM}:
        _check(result, "a keyring of its own")


def _drop_capabilities() -> None:
    _prctl("ambient capabilities", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    for capability in range(_MOST_CAPABILITIES):
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
            if ctypes.get_errno() == errno.EINVAL:
                break
            _check(-1, "bounding capabilities")
    _prctl("secure bits", _PR_SET_SECUREBITS, _SECUREBITS)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    _check(_libc.capset(header, nothing), "capabilities")


def _load_filter(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    loaded = _Program(len(program) // 8, ctypes.addressof(buffer))
    _prctl("system calls", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(loaded))


def main(arguments: list[str]) -> None:
    """Enter with the ticket of the first argument and become the command after ``--``."""
    try:
        ticket = json.loads(arguments[0])
        command = arguments[2:]
        if int(ticket["level"]) >= 2:
            # ipykernel watches this process by its number, which means nothing inside.
            os.environ.pop("JPY_PARENT_PID", None)
        enter_with(ticket)
        os.execvpe(command[0], command, os.environ)  # noqa: S606 - no shell on purpose
    except (OSError, ValueError, KeyError, IndexError) as error:
        os.write(2, f"the enclosure cannot be entered: {error}\n".encode())
        os._exit(_CANNOT_EXECUTE)


if __name__ == "__main__":
    main(sys.argv[1:])
