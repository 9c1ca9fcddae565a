"""Attempts to escape, made from inside (issue C, Show 6)."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from isolation_kernels import can_group

from toolkit.isolation import probe
from toolkit.values import IsolationLevel

L0, L1, L2, L3 = IsolationLevel
HARDENED = pytest.param(
    L3,
    marks=pytest.mark.skipif(not can_group(), reason="no control group can be made here: no L3"),
)

# Attempts that the operating system refuses to a user without rights, whatever we do.
OF_ROOT = {"system setting", "join namespace", "mount"}
# Attempts that depend on what the machine was built with; at L0 they may fail by themselves.
BY_MACHINE = {"vsock", "user namespace", "keys", "shared memory", "ptrace"}


def certain(names: set[str], *, root: bool) -> set[str]:
    return {
        name
        for name in names
        if not name.startswith("system call") and name not in BY_MACHINE
        if root or name not in OF_ROOT
    }


def test_every_attempt_succeeds_where_nothing_is_isolated() -> None:
    """An attempt that cannot succeed at all would prove nothing at the higher levels."""
    report = probe(L0)
    escaped = {p.name for p in report.probes if p.escaped}
    names = {p.name for p in report.probes}
    assert report.problem is None
    assert escaped >= certain(names, root=os.getuid() == 0)


def test_limits_alone_keep_nobody_in() -> None:
    """L1 promises a clean environment and limits, and nothing about the rest of the machine."""
    report = probe(L1)
    escaped = {p.name for p in report.probes if p.escaped}
    assert report.holds
    assert {"tcp", "other run", "process environment"} <= escaped


@pytest.mark.parametrize("level", [L2, HARDENED])
def test_no_attempt_succeeds_from_an_enclosure(level: IsolationLevel) -> None:
    """TCP, UDP, DNS, sockets, /proc, memory, home, other runs, namespaces, keys: nothing."""
    report = probe(level)
    assert report.problem is None, report.next_step
    assert {p.name: p.seen for p in report.escapes} == {}
    assert report.holds
    assert len([p for p in report.probes if p.least <= level]) >= 24


def test_no_attempt_succeeds_from_a_users_enclosure(
    as_user: Callable[[str], str], delegated: tuple[Path, ...]
) -> None:
    """A user without rights gets the same enclosure, and the same attempts succeed without it.

    L3 with a control group that was delegated to the user, where this machine has any.
    """
    levels = (0, 2, 3) if delegated else (0, 2)
    code = f"""if True:
        import json
        from toolkit.isolation import probe
        from toolkit.values import IsolationLevel
        found = {{}}
        for level in {levels}:
            report = probe(IsolationLevel(level))
            assert report.problem is None, report
            found[level] = [[p.name for p in report.probes if p.escaped],
                            [p.name for p in report.escapes], [p.name for p in report.probes]]
        print(json.dumps(found))
    """
    found = json.loads(as_user(code))
    assert found["2"][1] == []
    assert found.get("3", [[], []])[1] == []
    assert set(found["0"][0]) >= certain(set(found["0"][2]), root=False)
