"""Attempts to get out, made from inside; a program of its own, of the standard library only.

    probes.py TARGETS      TARGETS: a JSON object that names what was planted outside

It writes one JSON object to standard output: per probe ``[escaped, what was seen]``.  Every target
is a canary that was planted for it: a listener on loopback, a file, a process of our own.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import runpy
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["PROBES", "main"]

_WAIT_S = 1.0
_EXPECTED_CALLS = {  # name: (x86_64, aarch64, arguments that a kernel without a filter refuses)
    "bpf": (321, 280, (-1, 0, 0)),
    "io_uring_setup": (425, 425, (0, 0)),
    "userfaultfd": (323, 282, (-1,)),
    "perf_event_open": (298, 241, (0, 0, -1, -1, -1)),
    "keyctl": (250, 219, (-1,)),
    "add_key": (248, 217, (0, 0, 0, 0, 0)),
    "open_by_handle_at": (304, 265, (-1, 0, 0)),
    "process_vm_readv": (310, 270, (0, 0, 0, 0, 0, -1)),
    "ptrace": (101, 117, (0x4200, -1, 0, 0)),
    "pivot_root": (155, 41, (0, 0)),
    "personality": (135, 92, (0x0040000,)),
    "kexec_load": (246, 104, (0, 0, 0, 0)),
}
_KEYCTL = {"x86_64": (250, 249), "aarch64": (219, 218)}
_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17
_CLONE_NEWUSER, _CLONE_NEWNS = 0x10000000, 0x00020000
_MS_PRIVATE = 0x44000  # with MS_REC
_AF_VSOCK = 40

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.ptrace.argtypes = [ctypes.c_long] * 4
_libc.ptrace.restype = ctypes.c_long

Targets = dict[str, Any]
Answer = tuple[bool, str]


def _call(function: Callable[[], Any]) -> Answer:
    """Held if it raises."""
    try:
        seen = function()
    except (OSError, ValueError) as error:
        return False, _name(getattr(error, "errno", None)) or type(error).__name__
    return True, str(seen)[:80]


def _name(number: int | None) -> str:
    return errno.errorcode.get(number, str(number)) if number else ""


def _c(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _said(sock: socket.socket, canary: str) -> str:
    """Read the canary from a planted listener; anything else is no escape."""
    sock.settimeout(_WAIT_S)
    heard = sock.recv(64).decode("ascii", "replace")
    if canary not in heard:
        raise ValueError(heard)
    return heard


def _stream(family: int, address: Any, canary: str) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(_WAIT_S)
        sock.connect(address)
        return _said(sock, canary)


def _tcp(t: Targets) -> Answer:
    return _call(lambda: _stream(socket.AF_INET, ("127.0.0.1", t["tcp"]), t["canary"]))


def _udp(t: Targets, port: int | None = None, body: bytes = b"?") -> Answer:
    def ask() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", port or t["udp"]))
            sock.send(body)
            return _said(sock, t["canary"])

    return _call(ask)


def _dns(t: Targets) -> Answer:
    """A question for probe.invalid, type A, to the planted server (RFC 1035, section 4)."""
    question = (
        b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05probe\x07invalid\x00\x00\x01\x00\x01"
    )
    return _udp(t, t["dns"], question)


def _unix(t: Targets) -> Answer:
    return _call(lambda: _stream(socket.AF_UNIX, t["unix"], t["canary"]))


def _abstract(t: Targets) -> Answer:
    return _call(lambda: _stream(socket.AF_UNIX, "\0" + t["abstract"], t["canary"]))


def _vsock(t: Targets) -> Answer:
    """Whether such a socket can be had at all: no network namespace holds them."""

    def ask() -> str:
        with socket.socket(_AF_VSOCK, socket.SOCK_STREAM):
            return "a socket"

    return _call(ask)


def _read(path: str, canary: str) -> Answer:
    def look() -> str:
        with open(path, "rb") as file:
            if canary.encode() not in file.read(1 << 20):
                raise ValueError("no canary")
        return "the canary"

    return _call(look)


def _process_file(t: Targets, name: str) -> Answer:
    return _read(f"/proc/{t['pid']}/{name}", t["canary"])


def _memory(t: Targets) -> Answer:
    def look() -> str:
        with open(f"/proc/{t['pid']}/mem", "rb", buffering=0) as file:
            file.seek(t["memory_address"])
            if file.read(len(t["canary"])) != t["canary"].encode():
                raise ValueError("no canary")
        return "the canary"

    return _call(look)


def _any_environment(t: Targets) -> Answer:
    """Every process that can be seen, process 1 first, and this one itself."""
    if any(t["canary"] in value for value in os.environ.values()):
        return True, "own environment"
    for name in sorted((n for n in os.listdir("/proc") if n.isdecimal()), key=int):
        escaped, _ = _read(f"/proc/{name}/environ", t["canary"])
        if escaped:
            return True, f"process {name}"
    return False, "nowhere"


def _own_environment(t: Targets) -> Answer:
    held = not any(t["canary"] in value for value in os.environ.values())
    return not held, "nowhere" if held else "own environment"


def _write(t: Targets) -> Answer:
    def put() -> str:
        with open(t["outside"], "w", encoding="utf-8") as file:
            file.write("escaped")
        return "written"

    return _call(put)


def _system_setting(t: Targets) -> Answer:
    """Opened for writing and closed again, nothing is written."""

    def look() -> str:
        os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
        return "core_pattern can be written"

    return _call(look)


def _trace(t: Targets) -> Answer:
    def attach() -> str:
        _c(_libc.ptrace(_PTRACE_ATTACH, t["pid"], 0, 0))
        with contextlib.suppress(ChildProcessError):
            os.waitpid(t["pid"], 0x40000000)  # __WALL
        _libc.ptrace(_PTRACE_DETACH, t["pid"], 0, 0)
        return "attached"

    return _call(attach)


def _signal(t: Targets) -> Answer:
    return _call(lambda: os.kill(t["pid"], 0))


def _in_child(function: Callable[[], Any]) -> Answer:
    """Try in a process of its own, which the attempt may leave in a strange state."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, json.dumps(_call(function)).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        heard = file.read()
    os.waitpid(child, 0)
    if not heard:
        return False, "killed"
    escaped, seen = json.loads(heard)
    return bool(escaped), str(seen)


def _user_namespace(t: Targets) -> Answer:
    return _in_child(lambda: _c(_libc.unshare(_CLONE_NEWUSER)))


def _mount(t: Targets) -> Answer:
    def attempt() -> int:
        _c(_libc.unshare(_CLONE_NEWNS))
        _c(_libc.mount(None, b"/", None, _MS_PRIVATE, None))  # nobody else shall see it
        return _c(_libc.mount(b"none", t["folder"].encode(), b"tmpfs", 0, None))

    return _in_child(attempt)


def _join(t: Targets) -> Answer:
    def attempt() -> int:
        descriptor = os.open(f"/proc/{t['pid']}/ns/net", os.O_RDONLY)
        return _c(_libc.setns(descriptor, 0))

    return _in_child(attempt)


def _keys(t: Targets) -> Answer:
    """The planted key: by search in the session's keyring, and by its number."""
    numbers = _KEYCTL.get(platform.machine())
    if numbers is None or not t.get("key"):
        return False, "none planted"
    buffer = ctypes.create_string_buffer(64)

    def search() -> str:
        found = _c(_libc.syscall(numbers[1], b"user", t["key_name"].encode(), None, 0))
        return read(found)

    def read(key: int) -> str:
        size = _c(_libc.syscall(numbers[0], 11, key, buffer, 64))
        if t["canary"].encode() not in buffer.raw[:size]:
            raise ValueError("no canary")
        return "the canary"

    escaped, seen = _call(search)
    return (escaped, seen) if escaped else _call(lambda: read(t["key"]))


def _shared_memory(t: Targets) -> Answer:
    """A System V segment, by its number."""
    if t.get("shm") is None:
        return False, "none planted"
    _libc.shmat.restype = ctypes.c_void_p
    _libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]

    def attach() -> str:
        address = _libc.shmat(t["shm"], None, 0)
        if address in {None, ctypes.c_void_p(-1).value}:
            _c(-1)
        if t["canary"].encode() not in ctypes.string_at(address, 64):
            raise ValueError("no canary")
        return "the canary"

    return _call(attach)


def _capabilities(t: Targets) -> Answer:
    with open("/proc/self/status", encoding="ascii") as file:
        fields = dict(line.split(":", 1) for line in file if ":" in line)
    bits = {name: int(fields[name], 16) for name in ("CapPrm", "CapEff", "CapInh", "CapBnd")}
    free = fields.get("NoNewPrivs", "0").strip() != "1"
    some = any(bits.values())
    return some or free, "capabilities" if some else "may gain some" if free else "none"


def _limits(t: Targets) -> Answer:
    """Core dumps are off, a file's size and the number of open files have limits."""
    if resource.getrlimit(resource.RLIMIT_CORE)[1] != 0:
        return True, "core dumps"
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def large() -> str:
        with open(os.path.join(t["folder"], "large"), "wb", buffering=0) as file:
            file.writelines(b"x" * t["file_bytes"] for _ in range(3))
        return "a file over its limit"

    def many() -> str:
        with contextlib.ExitStack() as stack:
            for _ in range(t["open_files"] + 1):
                stack.enter_context(open("/dev/null", "rb"))
        return "open files over their limit"

    escaped, seen = _call(large)
    return (escaped, seen) if escaped else _call(many)


def _system_call(name: str) -> Callable[[Targets], Answer]:
    """Held where the system does not look at the arguments at all: EPERM or ENOSYS."""

    def probe(t: Targets) -> Answer:
        column = {"x86_64": 0, "aarch64": 1}.get(platform.machine())
        if column is None:
            return True, "unknown machine"
        *numbers, arguments = _EXPECTED_CALLS[name]
        result = _libc.syscall(numbers[column], *(ctypes.c_long(a) for a in arguments))
        number = 0 if result >= 0 else ctypes.get_errno()
        return number not in {errno.EPERM, errno.ENOSYS}, _name(number) or "done"

    return probe


def _netlink(t: Targets) -> Answer:
    def ask() -> str:
        # AF_NETLINK, NETLINK_KOBJECT_UEVENT: what udev hears of the machine's devices.
        with socket.socket(16, socket.SOCK_RAW, 15):
            return "a socket"

    return _call(ask)


def _group(name: str) -> Callable[[Targets], Answer]:
    """Return an attempt of the program beside this one; nothing here can be imported inside."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "group_probes.py")
    return lambda t: runpy.run_path(beside)[name](t)  # noqa: PLW0108 - read when it is called


PROBES: dict[str, tuple[int, str, Callable[[Targets], Answer]]] = {
    "own environment": (1, "a secret of the process that starts the kernel", _own_environment),
    "limits": (1, "core dumps, large files, many open files", _limits),
    "tcp": (2, "a listener on the machine's loopback", _tcp),
    "udp": (2, "a datagram to the machine's loopback, and an answer", _udp),
    "dns": (2, "a name server on the machine's loopback", _dns),
    "unix socket": (2, "another program's unix socket", _unix),
    "abstract socket": (2, "another program's abstract unix socket", _abstract),
    "vsock": (2, "a socket to the host of a virtual machine", _vsock),
    "process environment": (2, "/proc/PID/environ of a process outside",
                            lambda t: _process_file(t, "environ")),
    "process memory": (2, "/proc/PID/mem of a process outside", _memory),
    "process root": (2, "a file through /proc/PID/root of a process outside",
                     lambda t: _process_file(t, "root" + t["file"])),
    "any environment": (2, "the environment of any process that can be seen", _any_environment),
    "home": (2, "a file in the user's home", lambda t: _read(t["home"], t["canary"])),
    "other run": (2, "another run's file", lambda t: _read(t["file"], t["canary"])),
    "write outside": (2, "writing outside of the working folder", _write),
    "system setting": (2, "changing a setting of the system", _system_setting),
    "ptrace": (2, "tracing a process outside", _trace),
    "signal": (2, "a signal to a process outside", _signal),
    "join namespace": (2, "the network namespace of a process outside", _join),
    "user namespace": (2, "a new user namespace, with all rights in it", _user_namespace),
    "mount": (2, "mounting a file system", _mount),
    "keys": (2, "a key of the session or the user", _keys),
    "shared memory": (2, "another program's System V memory", _shared_memory),
    "capabilities": (2, "rights of root, held or to be gained", _capabilities),
    "group memory": (3, "more memory than the cap, by many processes", _group("group_memory")),
    "group processes": (3, "more processes than the cap", _group("group_processes")),
    "netlink": (3, "the kernel's configuration sockets", _netlink),
    **{f"system call {name}": (3, "a refused system call", _system_call(name))
       for name in _EXPECTED_CALLS},
}  # fmt: skip
"""Name: the level from which it must hold, what is tried, and how."""


def main(arguments: list[str]) -> None:
    """Run every probe and write the answers."""
    targets: Targets = json.loads(arguments[0])
    answers = {}
    for name, (_, _, probe) in PROBES.items():
        try:
            answers[name] = probe(targets)
        except Exception as error:
            # Not understood is not held.
            answers[name] = (True, f"{type(error).__name__}: {error}"[:80])
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
