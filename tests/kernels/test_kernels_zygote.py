"""When a zygote serves, when it does not, and what happens then."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from toolkit.kernels import WarmRequest, Zygote, stop_zygotes
from toolkit.kernels.freshness import Imported
from toolkit.kernels.zygotes import ColdStart
from toolkit.ledger import is_alive
from toolkit.values import RunState

PRINT = "print(1)"


@pytest.fixture
def stand_ins(tmp_path):
    """A zygote whose pandas and httpx are files of this test; imports little else."""
    packages, home = tmp_path / "packages", tmp_path / "zygotes"
    packages.mkdir()
    for name in ("pandas", "httpx"):
        (packages / f"{name}.py").write_text("")
    environment = {"PYTHONPATH": str(packages), "HOME": str(tmp_path)}
    yield packages, Zygote(home, Path(sys.executable), environment), environment
    stop_zygotes(home)


def request(environment: dict[str, str], cwd: Path) -> WarmRequest:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    return WarmRequest(("--help",), environment, str(cwd), stdout=nowhere, stderr=nowhere)


def test_a_zygote_that_is_not_up_yet_means_a_cold_start_that_says_so(run, home):
    """The run succeeds, and its notes name the reason."""
    shutil.rmtree(home / "empty", ignore_errors=True)
    ran = run(PRINT, zygotes=home / "empty")
    assert ran.ending.state is RunState.SUCCEEDED
    assert ran.ending.notes == ("the kernel was started cold: its zygote is not ready yet",)
    stop_zygotes(home / "empty")


def test_a_package_that_starts_a_thread_or_keeps_a_file_is_refused(stand_ins, tmp_path):
    """Neither survives a fork as its package expects."""
    packages, zygote, _ = stand_ins
    (packages / "pandas.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), name='worker', daemon=True).start()"
    )
    with pytest.raises(ColdStart, match=r"started threads .*worker"):
        zygote.wait(30)
    with pytest.raises(ColdStart, match="started threads"):
        zygote.wait(0)  # remembered, not tried again
    (zygote.folder / "refused.json").unlink()
    (packages / "pandas.py").write_text("kept = open(__file__)")
    with pytest.raises(ColdStart, match=r"keeps files open .*pandas\.py"):
        zygote.wait(30)


def test_a_package_that_changes_on_disk_ends_the_zygote(stand_ins, tmp_path):
    """The next kernel has the package that is there now, not the one that was."""
    packages, zygote, environment = stand_ins
    zygote.wait(30)
    first = zygote.pid()
    kernel = zygote.fork(request(environment, tmp_path), 0)
    assert kernel.wait(30) == 0, "ipykernel's own help was printed"
    kernel.release()
    (packages / "pandas.py").write_text("changed = True")
    with pytest.raises(ColdStart, match=r"pandas\.py has changed"):
        zygote.fork(request(environment, tmp_path), 0)
    zygote.wait(30)
    assert zygote.pid() not in {first, None}


class Late(WarmRequest):
    """A request that is written when the zygote has answered and ended."""

    pid: ClassVar[int] = 0

    def to_json(self) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while is_alive(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        return WarmRequest.to_json(self)


def test_a_zygote_that_ends_before_it_is_asked_is_heard(stand_ins, tmp_path):
    """Its reason is read from a closed connection, and the next zygote is started on it."""
    packages, zygote, environment = stand_ins
    zygote.wait(30)
    Late.pid = zygote.pid()
    kernel = zygote.fork(request(environment, tmp_path), 0)  # so nobody else is in its queue
    assert kernel.wait(30) == 0
    kernel.release()
    (packages / "pandas.py").write_text("changed = True")
    asked = request(environment, tmp_path)
    late = Late(asked.argv, asked.env, asked.cwd, stdout=asked.stdout, stderr=asked.stderr)
    with pytest.raises(ColdStart, match=r"pandas\.py has changed"):
        zygote.fork(late, 0)
    zygote.wait(30)
    assert zygote.pid() not in {Late.pid, None}


def test_noise_on_the_socket_costs_nothing_but_its_own_fork(zygote, warm, run):
    """Garbage, a huge length and a silent visitor leave the zygote as it was."""
    pid = zygote.pid()
    for noise in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\xff\xff\xff\xff{}", b"\0\0\0\2{}", b"\0\0"):
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(str(zygote.folder / "socket"))
            visitor.sendall(noise)
    assert run(PRINT).ending.notes == ()
    assert zygote.pid() == pid


def test_an_interpreter_without_the_toolkit_gets_cold_kernels(tmp_path):
    """The reason is remembered instead of being found out before every kernel."""
    bare = tmp_path / "bare" / "bin" / "python"
    bare.parent.mkdir(parents=True)
    bare.write_text("#!/bin/sh\necho 'No module named toolkit' >&2\nexit 1\n")
    bare.chmod(0o755)
    zygote = Zygote(tmp_path / "zygotes", bare, {})
    with pytest.raises(ColdStart):
        zygote.wait(5)
    with pytest.raises(ColdStart, match="No module named toolkit"):
        zygote.wait(0)
    with pytest.raises(ColdStart, match="cannot be started"):
        Zygote(tmp_path / "zygotes", tmp_path / "none", {}).wait(0)


def test_imported_files_are_told_apart_by_what_was_read(tmp_path, monkeypatch):
    """A file that is replaced, touched or removed is noticed; nothing else is."""
    module = tmp_path / "a_module_of_this_test.py"
    module.write_text("x = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    __import__(module.stem)
    imported = Imported.now()
    assert str(module) in imported.stamps
    assert imported.changed() is None
    os.utime(module, ns=(time.time_ns(), time.time_ns() + 10_000))
    assert imported.changed() == str(module)
    module.unlink()
    assert imported.changed() == str(module)
    del sys.modules[module.stem]
