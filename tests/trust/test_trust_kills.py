"""People who are killed while they approve: nothing counts that the audit log does not have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from approve_script import JOB, POLICY, act, open_promotions
from crash_world import fail_at, points
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from trust_world import FILES, World

from toolkit.app.standing import Wish
from toolkit.errors import Conflict
from toolkit.registry import Registry
from toolkit.values import JobRef, ManualClock

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
SCRIPT = Path(__file__).with_name("approve_script.py")


class Site:
    """A version that waits for two people, in a registry that can be copied and tried again."""

    def __init__(self, folder: Path, *, signed: bool) -> None:
        self.folder, self.signed = folder, signed
        world = World(folder) if signed else None
        self.us = world.clock.us if world else ManualClock().us
        for name, key in (world.keys if world else {}).items():
            pem = folder / f"{name}.pem"
            pem.touch(0o600)
            form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            pem.write_bytes(key.key.private_bytes(*form))
        (self.root / "policies" / "production").mkdir(parents=True)
        (self.root / "policies" / "production" / "policy.yaml").write_text(POLICY)

    @property
    def root(self) -> Path:
        return self.folder / "registry"

    def arguments(self, who: str, action: str) -> list[str]:
        keys = [self.folder / f"{who}.pem", self.folder / "state" / "state.json"]
        return [str(self.root), who, action, str(self.us), *map(str, keys if self.signed else [])]

    def acting(self, who: str):
        self.us += 60_000_000
        root, who, _, us, *rest = self.arguments(who, "")
        return open_promotions(Path(root), who, int(us), *rest)

    def copy(self, folder: Path) -> Site:
        made = Site.__new__(Site)
        made.folder, made.signed, made.us = folder, self.signed, self.us
        shutil.copytree(self.folder, folder)
        return made

    def given(self) -> set[str]:
        """The approvals that are in force: by name of their file, or by digest."""
        if self.signed:
            return {
                path.name for path in (self.root / "jobs" / JOB / "approvals").glob("*.dsse.json")
            }
        found = Registry(self.root).requests.get(JOB, 1)
        return {str(one.digest) for one in found.given}

    def logged(self, event: str) -> set[str]:
        records = self.acting("ana").registry.audit()
        bodies = [record.body for record in records if record.event == event]
        return {str(body.get("approval", "")).rpartition("/")[2] for body in bodies}


def waiting(folder: Path, *, signed: bool, said: tuple[str, ...]) -> Site:
    site = Site(folder, signed=signed)
    ana = site.acting("ana")
    bundle = ana.bundle().digest
    assert ana.registry.seal(JOB, FILES, {"by": "ana", "policy_digest": bundle}).version == 1
    assert ana.release(JOB, 1, Wish()) is not None
    for who in said:
        site.acting(who).approve(JobRef(JOB, "1"))
    return site


def kill_everywhere(folder: Path, site: Site, who: str, action: str, step: int) -> Iterator[bool]:
    """Kill at each point in turn and check; yield whether it was done by then; do it again."""
    site.us += 60_000_000
    trial = site.copy(folder / "trial")
    tried = points(SCRIPT, *trial.arguments(who, action), root=trial.folder, trace=folder / "trace")
    assert len(tried) > 10
    for at, point in enumerate(tried[::step]):
        made = site.copy(folder / f"k{at}")
        dead = fail_at(SCRIPT, *made.arguments(who, action), point=point)
        assert dead.returncode == -9, (point, dead.stderr)
        registry = made.acting("ana").registry
        faults = {fault.message for fault in registry.verify()}
        assert faults <= {"the last line was cut by a crash"}, (point, faults)
        assert made.given() <= made.logged("approval.given"), point
        moved = registry.aliases(JOB).get("production")
        assert moved in (None, 1), point
        yield moved == 1
        if action == "approve" and registry.requests.get(JOB, 1).state == "waiting":
            act(made.acting(who), action)
        elif registry.requests.get(JOB, 1).state == "waiting":
            act(made.acting("ana"), "settle")
        end = made.acting("ana")
        assert {"ben", "cho"} == set(end.get(JobRef(JOB, "1")).people), point
        assert end.registry.verify() == [], point
        with pytest.raises(Conflict):
            if made.signed and action == "approve":
                act(made.acting("ana"), "settle")
            made.acting("ben").approve(JobRef(JOB, "1"))
        assert end.registry.aliases(JOB) == {"production": 1}, point
        assert len(list(end.registry.alias_history(JOB))) == 1, point
        assert made.logged("promotion.released"), point
        shutil.rmtree(made.folder)


CASES = pytest.mark.parametrize(
    ("signed", "said", "who", "action"),
    [
        pytest.param(False, ("ben",), "cho", "approve", id="the last approval, unsigned"),
        pytest.param(True, ("ben",), "cho", "approve", id="the last approval, signed"),
        pytest.param(True, ("ben", "cho"), "ana", "settle", id="the operator's move"),
    ],
)


@CASES
@pytest.mark.chaos
def test_who_is_killed_while_approving_says_it_again(tmp_path, signed, said, who, action):
    """At a sample of the points: old or new, whole, and in the log before it counts."""
    site = waiting(tmp_path / "made", signed=signed, said=said)
    assert len(list(kill_everywhere(tmp_path, site, who, action, step=16))) >= 3


@CASES
@pytest.mark.scale
@pytest.mark.timeout(1200)
def test_no_single_death_loses_an_approval(tmp_path, signed, said, who, action):
    """At every point; where the alias moves, both sides of the move are among them."""
    site = waiting(tmp_path / "made", signed=signed, said=said)
    moved = set(kill_everywhere(tmp_path, site, who, action, step=1))
    assert moved == ({False} if signed and action == "approve" else {False, True})
