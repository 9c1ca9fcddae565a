"""The filter of system calls, run by a small interpreter of classic BPF."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ConfigurationError
from toolkit.isolation.seccomp import MACHINES, REFUSED, system_call_filter
from toolkit.values import IsolationLevel

L0, L1, L2, L3 = IsolationLevel
ALLOW, KILL = "allow", "kill"
NAMES = list(MACHINES)

pytestmark = pytest.mark.without_bubblewrap


def judge(program: bytes, arch: int, nr: int, *arguments: int) -> str | int:
    """Interpret a program over ``struct seccomp_data`` (linux/seccomp.h)."""
    args = [*arguments, *[0] * 6][:6]
    data = struct.pack("=IIQ6Q", nr, arch, 0, *args)
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    value = place = 0
    while True:
        code, yes, no, k = lines[place]
        place += 1
        if code == 0x20:
            (value,) = struct.unpack_from("=I", data, k)
        elif code in (0x15, 0x35, 0x45):
            holds = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            place += yes if holds else no
        elif code == 0x06:
            action = k & 0xFFFF0000
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}.get(action, k & 0xFFFF)
        else:
            raise AssertionError(hex(code))


@pytest.mark.parametrize("name", NAMES)
@given(
    nr=st.integers(0, 600),
    args=st.tuples(*[st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2, 10, 16])] * 3),
)
def test_what_is_named_is_refused_and_nothing_else(
    name: str, nr: int, args: tuple[int, int, int]
) -> None:
    """Differential: the program against the table and five rules written here again."""
    machine = MACHINES[name]
    refused = {n[machine.column] for n in REFUSED.values()}
    namespaces = 0x7E020000
    for level in (L2, L3):
        expected: str | int = ALLOW
        if nr == machine.clone3:
            expected = errno.ENOSYS
        elif nr == machine.setns:
            expected = errno.EPERM
        elif nr == machine.clone:
            expected = errno.EPERM if args[0] & namespaces else ALLOW
        elif nr == machine.unshare:
            expected = errno.EPERM if args[0] & (namespaces | 0x80) else ALLOW
        elif nr == machine.socket:
            route = args[2] & 0xFFFFFFFF == 0  # the list of the enclosure's own interfaces
            families = {1, 2, 10} | ({16} if level is L2 or route else set())
            expected = ALLOW if args[0] & 0xFFFFFFFF in families else errno.EAFNOSUPPORT
        elif level is L3 and nr == machine.personality:
            expected = ALLOW if args[0] & 0xFFFFFFFF in {0, 0xFFFFFFFF} else errno.EPERM
        elif level is L3 and nr == machine.ioctl:
            expected = errno.EPERM if args[1] & 0xFFFFFFFF in {0x5412, 0x541C} else ALLOW
        elif level is L3 and nr in refused:
            expected = errno.EPERM
        assert judge(system_call_filter(level, name), machine.audit, nr, *args) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("family", range(48))
def test_only_families_that_a_network_namespace_holds(name: str, family: int) -> None:
    """AF_VSOCK (40) reaches a virtual machine's host from any namespace."""
    machine = MACHINES[name]
    answer = judge(system_call_filter(L3, name), machine.audit, machine.socket, family, 3, 15)
    assert answer == (ALLOW if family in {1, 2, 10} else errno.EAFNOSUPPORT)


def test_other_calling_conventions_are_killed() -> None:
    """The same numbers mean other calls in i386 and x32 programs."""
    program = system_call_filter(L2, "x86_64")
    assert judge(program, 0x40000003, 1) == KILL
    assert judge(program, MACHINES["x86_64"].audit, 0x40000000 + 101) == KILL
    assert judge(program, MACHINES["x86_64"].audit, 0xFFFFFFFF) == KILL


def test_typing_into_a_terminal_is_refused() -> None:
    """TIOCSTI, whatever the upper half of the argument says."""
    machine = MACHINES["x86_64"]
    program = system_call_filter(L3, "x86_64")
    assert judge(program, machine.audit, machine.ioctl, 0, 0x5412 | 1 << 32) == errno.EPERM


def test_an_unknown_machine_gets_no_filter_and_no_enclosure() -> None:
    """No guess: numbers of another machine would refuse something else."""
    assert system_call_filter(L1, "riscv64") == b""
    with pytest.raises(ConfigurationError, match="riscv64"):
        system_call_filter(L2, "riscv64")
