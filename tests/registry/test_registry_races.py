"""Many writers at once, and writers that die at any point."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash_world import KILL, fail_at, points, run_script
from registry_world import FACTS, FILES
from s3_world import new_address, s3_server

from toolkit.registry import Registry, place_at

CHAOS = pytest.mark.chaos  # it ends processes: `make chaos`, in CI as well

WRITER = Path(__file__).with_name("seal_script.py")
SEAL = ("a", "--bytes", 50)
MOVE = ("a", "--alias", 2)


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A folder, or a bucket of a server on loopback."""
    if request.param == "disk":
        yield str(tmp_path / "r")
    else:
        with s3_server() as url:
            yield new_address(url)


def promote_at_once(place: str, *, writers: int, times: int) -> None:
    """Let processes seal versions of one job at once; check that nothing is missing or twice."""
    argv = [sys.executable, "-B", str(WRITER), place, "busy", "--times", str(times)]
    running = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(writers)]
    lines = [line for writer in running for line in writer.communicate()[0].splitlines()]
    assert [writer.returncode for writer in running] == [0] * writers
    numbers = sorted(int(line.split()[0]) for line in lines)
    assert numbers == list(range(1, writers * times + 1))
    registry = Registry(Path(place), place=place_at(place))
    assert registry.versions("busy") == numbers
    assert registry.verify() == []
    records = list(registry.audit())
    assert [r.n for r in records] == list(range(1, 1 + 1 + 2 * len(numbers)))
    assert [r.body["version"] for r in records if r.event == "version.sealed"] == numbers


@CHAOS
def test_promoters_get_unique_dense_numbers(place: str) -> None:
    """Every seal gets a number of its own, none is left out, and everything verifies."""
    on_disk = not place.startswith("s3:")
    promote_at_once(place, writers=16 if on_disk else 4, times=6 if on_disk else 3)


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_sixteen_promoters_of_fifty_versions(place: str) -> None:
    """The same with 800 versions."""
    promote_at_once(place, writers=16, times=50)


@CHAOS
def test_concurrent_records_form_one_chain(tmp_path: Path) -> None:
    """No record is lost, none is overwritten."""
    argv = [sys.executable, "-B", str(WRITER), str(tmp_path / "r")]
    writers = [
        subprocess.Popen([*argv, f"w{i}", "--event", "x.y", "--times", "50"]) for i in range(4)
    ]
    assert [writer.wait() for writer in writers] == [0] * 4
    records = list(Registry(tmp_path / "r").audit())[1:]
    assert sorted((r.by, r.body["turn"]) for r in records) == [
        (f"w{i}", turn) for i in range(4) for turn in range(50)
    ]


@CHAOS
def test_one_of_two_racing_promoters_gets_the_alias(tmp_path: Path) -> None:
    """Moves at the same time are serialised; the history has them all."""
    registry = Registry(tmp_path / "r")
    for _ in range(4):
        registry.seal("a", FILES, FACTS)
    argv = [sys.executable, "-B", str(WRITER), str(tmp_path / "r"), "a", "--alias"]
    movers = [subprocess.Popen([*argv, str(number)]) for number in (1, 2, 3, 4)]
    assert [mover.wait() for mover in movers] == [0] * 4
    moves = registry.alias_history("a")
    assert sorted(move.after for move in moves) == [1, 2, 3, 4]
    assert [m.before for m in moves] == [None, *(m.after for m in moves[:-1])]
    assert registry.verify() == []


def crash_everywhere(tmp_path: Path, action: tuple[object, ...], fault: str, step: int) -> int:
    """Let ``action`` fail at each of its writes in turn; after each, check and do it again.

    Returns:
        How many points were tried.
    """
    start = tmp_path / "start"
    registry = Registry(start)
    for _ in range(2):
        registry.seal("a", FILES, FACTS)
    registry.set_alias("a", "production", 1, by="ana")
    rehearsal = tmp_path / "rehearsal"
    shutil.copytree(start, rehearsal)
    tried = points(WRITER, rehearsal, *action, root=rehearsal, trace=tmp_path / "t")[::step]
    assert tried
    for point in tried:
        root = tmp_path / f"{point[0]}-{point[1]}"
        shutil.copytree(start, root)
        crashed = fail_at(WRITER, root, *action, point=point, fault=fault)
        assert crashed.returncode != 0 or fault != KILL, point
        check_after_crash(Registry(root), f"{point} ({crashed.returncode})")
        again = run_script(WRITER, root, *action)
        assert again.returncode == 0, (point, again.stderr)
        assert Registry(root).verify() == [], point
        shutil.rmtree(root)
    return len(tried)


def check_after_crash(registry: Registry, where: str) -> None:
    """Old state or new state: whole versions, an intact chain, at most one torn last line."""
    for number in registry.versions("a"):
        assert registry.load(f"a@{number}"), where
    assert registry.resolve("a").number in (1, 2), where
    faults = [f.message for f in registry.verify()]
    assert set(faults) <= {"the last line was cut by a crash"}, (where, faults)


@CHAOS
@pytest.mark.parametrize(("action", "fault"), [(SEAL, KILL), (MOVE, KILL), (SEAL, "error=EIO")])
def test_a_crash_leaves_the_old_or_the_new_state(
    tmp_path: Path, action: tuple[object, ...], fault: str
) -> None:
    """Killed or failed at a sample of its writes: nothing half, and the next try works."""
    assert crash_everywhere(tmp_path, action, fault, step=5) >= 4


@pytest.mark.scale
@pytest.mark.parametrize("action", [SEAL, MOVE])
@pytest.mark.parametrize("fault", [KILL, "error=ENOSPC", "error=EIO"])
def test_no_single_fault_breaks_the_registry(
    tmp_path: Path, action: tuple[object, ...], fault: str
) -> None:
    """The same at every single write."""
    assert crash_everywhere(tmp_path, action, fault, step=1) >= 20
