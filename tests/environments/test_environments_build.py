"""Environments: what is locked is installed, by hash, once, whole, and found out when it changes."""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from environments_world import Bench, make_bench, write_wheel

from toolkit.environments import Built, Environments, Lock
from toolkit.errors import (
    ConfigurationError,
    InfrastructureError,
    IntegrityError,
    InvalidFile,
    NotebookRejected,
    ToolkitError,
)

# -- lock -------------------------------------------------------------------------------------


def test_a_lock_names_every_package_with_its_hashes_and_no_address(bench: Bench) -> None:
    """Declared, needed and the kernel side's; the folder that uv was given is not in it."""
    lock = bench.lock("tiny")
    assert [(p.name, p.version) for p in lock.packages] == [
        ("helper", "1.0"),
        ("kernelish", "1.0"),
        ("tiny", "2.0"),
    ]
    assert {h for p in lock.packages for h in p.hashes} == bench.digests(
        "helper", "kernelish", "tiny-2.0"
    )
    text = lock.to_bytes().decode()
    assert str(bench.root) not in text
    assert "://" not in text
    assert Lock.parse(lock.to_bytes()) == lock


def test_what_nothing_satisfies_is_the_notebooks_fault(bench: Bench) -> None:
    """An unknown package, a version that is not there, another Python: one sentence each."""
    for asked, python in ((("tiny>=3",), ""), (("nowhere",), ""), (("tiny",), "<3")):
        with pytest.raises(NotebookRejected) as caught:
            bench.lock(*asked, python=python)
        assert caught.value.next_step
        assert "\n" not in caught.value.message


def test_without_a_network_the_next_step_is_named(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody listens at the index: try again, or use the cache; its password is not shown."""
    (bench.root / "uv.toml").write_text("")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://ana:s3cret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_CACHE_DIR", str(bench.root / "cache"))
    with pytest.raises(InfrastructureError) as caught:
        bench.lock("tiny")
    assert "UV_OFFLINE=1" in str(caught.value.next_step)
    assert "s3cret" not in repr(caught.value.to_json())
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(InfrastructureError) as offline:
        bench.lock("tiny")
    assert "without UV_OFFLINE" in str(offline.value.next_step)


def test_a_source_distribution_is_not_considered(bench: Bench) -> None:
    """Building one would execute its code."""
    (bench.wheels / "source-1.0.tar.gz").write_bytes(b"never opened")
    with pytest.raises(NotebookRejected):
        bench.lock("source")


# -- build ------------------------------------------------------------------------------------


def test_an_environment_holds_the_locked_packages_and_the_kernel_side(bench: Bench) -> None:
    """Built once, found the second time; nothing of this process's packages is in it."""
    lock = bench.lock("tiny==1.0")
    first = bench.environments.ensure(lock)
    assert first.fresh
    code = (
        "import importlib.util as u, json, sys, tiny, toolkit; print(json.dumps("
        "[tiny.version, toolkit.half, u.find_spec('pydantic') is None, sys.version, sys.prefix]))"
    )
    done = subprocess.run(
        [first.python, "-c", code], cwd=bench.root, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        *("1.0", "the kernel", True, sys.version),
        str(first.folder / "venv"),
    ]
    second = bench.environments.ensure(lock)
    assert (second.fresh, second.digest, second.notes) == (False, first.digest, ())
    assert [one.digest for one in bench.environments.all()] == [first.digest]


def test_another_lock_or_another_toolkit_is_another_environment(bench: Bench) -> None:
    """The name is the digest of everything that it is made of."""
    lock = bench.lock("tiny==1.0")
    before = bench.environments.digest_of(lock)
    assert bench.environments.digest_of(bench.lock("tiny==2.0")) != before
    bench.text = "half = 'a newer kernel'\n"
    bench.renew()
    assert bench.environments.digest_of(lock) != before


def test_a_changed_wheel_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same name and version, other bytes: nothing is installed, nothing is left behind."""
    lock = bench.lock("tiny==1.0")
    write_wheel(bench.wheels, "tiny", "1.0", {"tiny_more.py": "x = 1\n"})
    monkeypatch.setenv("UV_CACHE_DIR", str(bench.root / "cache"))
    with pytest.raises(IntegrityError, match="tiny"):
        bench.environments.ensure(lock)
    assert bench.environments.all() == []
    assert [p.name for p in bench.environments.folder.iterdir() if p.is_dir()] == []


def test_what_python_starts_by_itself_is_refused(bench: Bench) -> None:
    """A package that brings such files is not fit, however well it is locked; none is executed."""
    canary = bench.root / "canary"
    code = f"import pathlib; pathlib.Path({str(canary)!r}).write_text('x')\n"
    files = dict.fromkeys(("evil.pth", "sitecustomize.py", "usercustomize/__init__.py"), code)
    write_wheel(bench.wheels, "evil", "1.0", files)
    with pytest.raises(InvalidFile) as caught:
        bench.environments.ensure(bench.lock("evil"))
    assert len(caught.value.details["faults"]) == 3
    assert all(name in caught.value.message for name in files)
    assert bench.environments.all() == []
    assert not canary.exists()


def test_a_file_that_no_record_names_is_refused(bench: Bench) -> None:
    """uv installs what a wheel holds; what the wheel does not own up to is not accepted."""
    write_wheel(bench.wheels, "sly", "1.0", {"sly_more.py": "x = 1\n"}, recorded=False)
    with pytest.raises(ToolkitError, match="sly"):
        bench.environments.ensure(bench.lock("sly"))
    assert bench.environments.all() == []


def test_a_toolkit_that_needs_more_than_the_lock_has_is_found_out(bench: Bench) -> None:
    """The lock is as old as the version; the toolkit is today's."""
    lock = bench.lock("tiny==1.0")
    bench.needs = ("kernelish>=1", "helper")
    bench.renew()
    with pytest.raises(ConfigurationError) as caught:
        bench.environments.ensure(lock)
    assert "helper" in caught.value.message
    assert "promote" in str(caught.value.next_step)


def test_a_lock_for_another_machine_is_refused(bench: Bench) -> None:
    """Another Python or another platform: said before anything is installed."""
    lock = bench.lock("tiny==1.0")
    for other in (
        Lock("3.4", lock.platform, lock.declared, lock.packages),
        Lock(lock.python, "plan9-mips", lock.declared, lock.packages),
    ):
        with pytest.raises(ConfigurationError, match="this machine has"):
            bench.environments.ensure(other)


def _ensure(bench: Bench, lock: bytes) -> bool:
    return bench.environments.ensure(Lock.parse(lock)).fresh


def test_many_runs_at_once_build_it_once(bench: Bench) -> None:
    """Four processes ask at the same time; one builds, the others find it."""
    lock = bench.lock("tiny==1.0").to_bytes()
    with multiprocessing.get_context("fork").Pool(4) as pool:
        fresh = pool.starmap(_ensure, [(bench, lock)] * 4)
    assert sorted(fresh) == [False, False, False, True]
    assert len(bench.environments.all()) == 1


# -- verify -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shared:
    """A bench with one environment that several tests use; each leaves it whole."""

    bench: Bench
    lock: Lock

    @property
    def environments(self) -> Environments:
        return self.bench.environments

    @property
    def built(self) -> Built:
        return self.environments.ensure(self.lock)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    with pytest.MonkeyPatch.context() as patch:
        bench = make_bench(tmp_path_factory.mktemp("shared"), patch)
        yield Shared(bench, bench.lock("tiny==1.0"))


def _packages(built: Built) -> Path:
    return next((built.folder / "venv").glob("lib/python*/site-packages"))


def _change(path: Path, text: str) -> None:
    """Replace a file as an attacker of this environment would: a new inode, not uv's cache's."""
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    path.write_text(text)


def test_harm_is_found_named_and_the_environment_is_built_again(shared: Shared) -> None:
    """Changed, planted, missing, bytecode, configuration: each is named; a run gets a new one."""
    built = shared.built
    home = _packages(built)
    _change(home / "tiny.py", "version = 'other'\n")
    _change(home / "planted.pth", "import os\n")
    _change(home / "toolkit" / "planted.py", "")
    (home / "kernelish.py").unlink()
    _change(next((home / "__pycache__").glob("tiny.*.pyc")), "no bytecode")
    _change(built.folder / "venv" / "pyvenv.cfg", "home = /\n")
    faults = shared.environments.verify(built.digest)
    names = {Path(fault.where).name.partition(".cpython")[0] for fault in faults}
    assert names == {
        *("tiny.py", "planted.pth", "planted.py", "kernelish.py", "tiny", "pyvenv.cfg"),
    }
    again = shared.built
    assert again.fresh
    assert faults[0].where in again.notes[0]
    assert shared.environments.verify(built.digest) == []


def test_a_touched_file_costs_a_full_check_and_no_more(shared: Shared) -> None:
    """Same bytes, another time: the stamp differs, the digests do not."""
    os.utime(_packages(shared.built) / "tiny.py")
    again = shared.built
    assert (again.fresh, again.notes) == (False, ())


def test_the_first_run_after_a_boot_reads_every_file(shared: Shared) -> None:
    """A change that kept size, time and inode passes the stamp, and not the first check."""
    built = shared.built
    path = _packages(built) / "tiny.py"
    facts = path.stat()
    data = path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(data.replace(b"1.0", b"6.6"))
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    try:
        assert not shared.built.fresh
        (built.folder / "verified").write_text("an earlier boot")
        found = shared.environments.verify(built.digest)
        assert [f.where for f in found] == [str(path.relative_to(built.folder / "venv"))]
    finally:  # it may be the very file of uv's cache
        with path.open("r+b") as stream:
            stream.write(data)
    assert not shared.built.fresh


def test_nobody_writes_bytecode_or_packages_into_it(shared: Shared) -> None:
    """Its folders are closed; its bytecode was made when it was built."""
    home = _packages(shared.built)
    assert (home.stat().st_mode & 0o222, (home / "toolkit").stat().st_mode & 0o222) == (0, 0)
    assert list((home / "__pycache__").glob("tiny.*.pyc"))


def test_pruning_keeps_what_is_used(shared: Shared) -> None:
    """A running process and a recent use keep it; without either it goes."""
    built, store = shared.built, shared.environments
    process = subprocess.Popen([built.python, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        while not store.all()[0].in_use:
            assert process.poll() is None
        assert store.prune(0) == []
    finally:
        process.communicate(b"\n")
    assert store.prune(3600) == []
    assert store.prune(0) == [built.digest]
    assert not built.folder.exists()


def test_a_half_built_one_is_never_seen(tmp_path: Path) -> None:
    """What a builder that died left behind is no environment, and is swept a day later."""
    store = Environments(tmp_path / "environments", tmp_path)
    left = store.folder / ".building-0123"
    (left / "venv").mkdir(parents=True)
    assert store.all() == []
    store.prune(0)
    assert left.exists()
    old = time.time() - 90_000
    os.utime(left, (old, old))
    store.prune(0)
    assert not left.exists()
