"""Memory, processes and files under caps."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from isolation_kernels import can_group

from toolkit.isolation import Enclosure, EnclosureSpec
from toolkit.values import Caps, IsolationLevel

L0, L1, L2, L3 = IsolationLevel
HIGHEST = L3 if can_group() else L2  # where no control group can be made, L2 is all there is
Make = Callable[..., EnclosureSpec]
MIB = 1 << 20


def run(enclosure: Enclosure, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        enclosure.command([sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]),
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("level", [L1, HIGHEST])
def test_one_process_gets_an_error_instead_of_memory(spec: Make, level: IsolationLevel) -> None:
    """An error that a cell can show, instead of a dead machine."""
    with Enclosure(spec(level, caps=Caps(memory_bytes=128 * MIB))) as enclosure:
        ended = run(enclosure, "x = bytearray(200_000_000)")
        fine = run(enclosure, "x = bytearray(20_000_000)")
    assert "MemoryError" in ended.stderr
    assert fine.returncode == 0


def test_many_processes_together_are_killed_and_it_is_known_why(spec: Make) -> None:
    """Shared memory escapes the limits of a process; the control group counts it."""
    code = """
    import mmap
    blocks = []
    for _ in range(20):
        block = mmap.mmap(-1, 10_000_000)
        block.write(b"x" * 10_000_000)
        blocks.append(block)
    """
    with Enclosure(spec(HIGHEST, caps=Caps(memory_bytes=100 * MIB, processes=50))) as enclosure:
        if any("memory" in note for note in enclosure.notes):
            pytest.skip("no control group for memory can be made here")
        assert not enclosure.oom_killed()
        assert run(enclosure, code).returncode == -9
        assert enclosure.oom_killed()
        group = enclosure.ticket().groups
    assert group
    assert not any(Path(path).exists() for path in group)


def test_forks_stop_at_the_cap(spec: Make) -> None:
    """The run sees EAGAIN; the machine sees nothing."""
    code = """
    import os, time
    made = 0
    try:
        while made < 500:
            if os.fork() == 0:
                os.closerange(0, 3)
                time.sleep(1000)
            made += 1
    except OSError as error:
        print(made, error.errno)
    """
    with Enclosure(spec(L2, caps=Caps(processes=40))) as enclosure:
        if os.getuid() == 0 and any("processes" in note for note in enclosure.notes):
            pytest.skip("root without a control group has no limit of processes")
        ended = run(enclosure, code)
    made, number = map(int, ended.stdout.split())
    assert 20 <= made <= 42
    assert number == 11


@pytest.mark.chaos
def test_a_fork_bomb_ends_with_its_enclosure(spec: Make) -> None:
    """Processes that start new ones as fast as they can are gone when it closes."""
    code = """
    import os
    os.write(1, b"up")
    while True:
        try:
            os.fork()
        except OSError:
            pass
    """
    with Enclosure(spec(HIGHEST, caps=Caps(processes=60, memory_bytes=512 * MIB))) as enclosure:
        command = enclosure.command([sys.executable, "-I", "-S", "-c", textwrap.dedent(code)])
        with subprocess.Popen(command, stdout=subprocess.PIPE) as bomb:
            assert bomb.stdout is not None
            assert bomb.stdout.read(2) == b"up"
            with pytest.raises(subprocess.TimeoutExpired):
                bomb.wait(2.0)
            enclosure.close()
            # The last copy of the pipe's end is closed: nobody is left.
            assert bomb.stdout.read() == b""
        assert not any("left over" in note for note in enclosure.notes)


@pytest.mark.parametrize("level", [L1, L2])
def test_a_file_has_a_largest_size(spec: Make, level: IsolationLevel) -> None:
    """A disk is shared by everybody."""
    code = """
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        open("large", "wb").write(b"x" * 3_000_000)
    except OSError as error:
        print(error.errno)
    """
    made = spec(level, caps=Caps(file_bytes=MIB))
    with Enclosure(made) as enclosure:
        command = enclosure.command([sys.executable, "-I", "-S", "-c", textwrap.dedent(code)])
        ended = subprocess.run(command, capture_output=True, text=True, cwd=made.work)
    assert ended.stdout == "27\n"
