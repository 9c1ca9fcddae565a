"""The filter of system calls: a small classic BPF program, made here, loaded with seccomp(2).

Format: ``struct sock_filter`` of linux/filter.h, run over ``struct seccomp_data`` of
linux/seccomp.h (``nr`` at 0, ``arch`` at 4, ``instruction_pointer`` at 8, six 64-bit arguments
from 16).  Numbers of system calls: asm/unistd_64.h for x86_64, asm-generic/unistd.h for aarch64.

The list names what is refused.  It cannot be a list of what is allowed: a kernel runs whatever
a notebook imports.  Namespaces are what keeps a kernel in; the filter takes away the parts of the
system that are used to break out of namespaces.
"""

from __future__ import annotations

import errno
import platform
import socket
import struct
from dataclasses import dataclass

from toolkit.errors import ConfigurationError
from toolkit.values import IsolationLevel

__all__ = ["MACHINES", "REFUSED", "system_call_filter"]

_LOAD, _JEQ, _JGE, _JSET, _AND, _RET = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NR, _ARCH, _ARG0, _ARG1, _ARG2 = 0, 4, 16, 24, 32
_AF_NETLINK, _NETLINK_ROUTE = 16, 0
_X32 = 0x40000000
# CLONE_NEWTIME is a bit of clone's exit signal there, so it counts for unshare only.
_CLONE_NAMESPACES = 0x7E020000
_UNSHARE_NAMESPACES = 0x7E020080
_ASK_PERSONALITY = 0xFFFFFFFF
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

# name: (x86_64, aarch64); None where the machine does not have the call.
REFUSED: dict[str, tuple[int | None, int | None]] = {
    # other processes' memory and state
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    # mounts and roots
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    # keys
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    # large, young or privileged parts of the kernel
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "fanotify_init": (300, 262),
    "vmsplice": (278, 75),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    "acct": (163, 89),
    # the machine
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "vhangup": (153, 58),
    "nfsservctl": (180, 42),
    "uselib": (134, None),
    "ustat": (136, None),
    "sysfs": (139, None),
    "_sysctl": (156, None),
}
"""What is refused at L3 with ``EPERM``, beside what :func:`system_call_filter` looks into."""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    column: int
    unshare: int
    setns: int
    clone: int
    clone3: int
    socket: int
    personality: int
    ioctl: int


MACHINES: dict[str, _Machine] = {
    "x86_64": _Machine(0xC000003E, 0, 272, 308, 56, 435, 41, 135, 16),
    "aarch64": _Machine(0xC00000B7, 1, 97, 268, 220, 435, 198, 92, 29),
}
"""Machines that a filter can be made for, by :func:`platform.machine`."""


def system_call_filter(level: IsolationLevel, machine: str | None = None) -> bytes:
    """Return the program for a level; empty below L2.

    At L2 it closes what namespaces leave open: families of sockets that no network namespace holds
    (``AF_VSOCK`` reaches the host of a virtual machine), and new namespaces.  L3 refuses
    :data:`REFUSED` too, netlink sockets but for the list of the enclosure's own network interfaces
    (ZeroMQ looks them up), other personalities, and typing into a terminal.

    Args:
        level: Of the enclosure.
        machine: As :func:`platform.machine` names it; ``None``: this one.

    Raises:
        ConfigurationError: There is no table for the machine.
    """
    if level < IsolationLevel.L2:
        return b""
    name = machine or platform.machine()
    found = MACHINES.get(name)
    if found is None:
        raise ConfigurationError(
            f"no filter of system calls can be made for the machine {name}",
            where="isolation",
            next_step=f"use one of {', '.join(MACHINES)}, or a policy with minimum_isolation: limits",
        )
    return _Program(found, level).assembled()


class _Program:
    """Writes the instructions of one filter; each block leaves the call's number loaded."""

    def __init__(self, machine: _Machine, level: IsolationLevel) -> None:
        self._machine = machine
        self._lines: list[tuple[int, int, int, int]] = []
        self._entrance()
        self._namespaces()
        self._sockets(every_netlink=level < IsolationLevel.L3)
        if level >= IsolationLevel.L3:
            self._hardened()
        self._add(_RET, _ALLOW)

    def assembled(self) -> bytes:
        return b"".join(struct.pack("=HBBI", *line) for line in self._lines)

    def _add(self, code: int, k: int, yes: int = 0, no: int = 0) -> None:
        self._lines.append((code, yes, no, k))

    def _refuse(self, number: int = errno.EPERM) -> None:
        self._add(_RET, _ERRNO | number)

    def _entrance(self) -> None:
        self._add(_LOAD, _ARCH)
        self._add(_JEQ, self._machine.audit, 1, 0)
        self._add(_RET, _KILL_PROCESS)  # i386 calls have other numbers
        self._add(_LOAD, _NR)
        if self._machine.column == 0:
            self._add(_JGE, _X32, 0, 1)
            self._add(_RET, _KILL_PROCESS)

    def _refuse_call(self, nr: int, number: int = errno.EPERM) -> None:
        self._add(_JEQ, nr, 0, 1)
        self._refuse(number)

    def _refuse_bits(self, nr: int, argument: int, bits: int) -> None:
        self._add(_JEQ, nr, 0, 4)
        self._add(_LOAD, argument)
        self._add(_JSET, bits, 0, 1)
        self._refuse()
        self._add(_LOAD, _NR)

    def _namespaces(self) -> None:
        machine = self._machine
        self._refuse_bits(machine.clone, _ARG0, _CLONE_NAMESPACES)
        self._refuse_bits(machine.unshare, _ARG0, _UNSHARE_NAMESPACES)
        self._refuse_call(machine.setns)
        # Its flags are behind a pointer, which a filter cannot follow; libc goes back to clone.
        self._refuse_call(machine.clone3, errno.ENOSYS)

    def _sockets(self, *, every_netlink: bool) -> None:
        families = [int(each) for each in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)]
        if every_netlink:
            families.append(_AF_NETLINK)
        routes = 0 if every_netlink else 3
        allowed = len(families)
        self._add(_JEQ, self._machine.socket, 0, allowed + routes + 3)
        self._add(_LOAD, _ARG0)
        for position, family in enumerate(families):
            self._add(_JEQ, family, allowed - position + routes, 0)
        if routes:
            self._add(_JEQ, _AF_NETLINK, 0, 2)
            self._add(_LOAD, _ARG2)
            self._add(_JEQ, _NETLINK_ROUTE, 1, 0)
        self._refuse(errno.EAFNOSUPPORT)
        self._add(_LOAD, _NR)

    def _hardened(self) -> None:
        machine = self._machine
        self._add(_JEQ, machine.personality, 0, 5)
        self._add(_LOAD, _ARG0)
        self._add(_JEQ, 0, 2, 0)
        self._add(_JEQ, _ASK_PERSONALITY, 1, 0)
        self._refuse()
        self._add(_LOAD, _NR)
        self._add(_JEQ, machine.ioctl, 0, 5)
        self._add(_LOAD, _ARG1)
        self._add(_JEQ, _TIOCSTI, 1, 0)
        self._add(_JEQ, _TIOCLINUX, 0, 1)
        self._refuse()
        self._add(_LOAD, _NR)
        for numbers in REFUSED.values():
            number = numbers[machine.column]
            if number is not None:
                self._refuse_call(number)
