"""A promotion that is killed between seal, record and alias is completed by saying it again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from approve_script import JOB, POLICY, open_promotions
from crash_world import fail_at, points
from land_script import MEASUREMENTS, promote
from test_trust_kills import Site
from test_trust_promotions import House

from toolkit.app.promotions import Promotions
from toolkit.app.standing import Wish
from toolkit.errors import ConfigurationError, UsageError
from toolkit.promotion.evidence import collect, summary, summary_of
from toolkit.promotion.stages import Promotion, Stage
from toolkit.registry import AuditRecord, Registry
from toolkit.trust import RootOffice, open_signer
from toolkit.values import JobRef, ManualClock

SCRIPT = Path(__file__).with_name("land_script.py")
NOBODY = POLICY.replace("approvals: 2", "approvals: 0")
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")


class LandingSite(Site):
    """Nothing sealed yet; ana promotes, and is the operator where the registry is signed."""

    def __init__(self, folder: Path, *, signed: bool, asked: bool) -> None:
        super().__init__(folder, signed=signed)
        self.asked = asked
        if not asked:
            (self.root / "policies" / "production" / "policy.yaml").write_text(NOBODY)

    def arguments(self, who: str, action: str) -> list[str]:
        root, name, _, us, *rest = super().arguments(who, action)
        return [root, name, us, *rest]

    def acting(self, who: str) -> Promotions:
        self.us += 60_000_000
        root, name, us, *rest = self.arguments(who, "")
        return open_promotions(Path(root), name, int(us), *rest)

    def refusing(self, event: str) -> Refusing:
        """The registry as ana opens it, with a disk that refuses one event."""
        root, _, us, *rest = self.arguments("ana", "")
        signed = {"trust_state": Path(rest[1]), "signer": lambda: open_signer(f"file:{rest[0]}")} if rest else {}  # fmt: skip
        made = Refusing(Path(root), clock=ManualClock(int(us)), **signed)
        made.event = event
        return made

    def copy(self, folder: Path) -> LandingSite:
        made = super().copy(folder)
        made.__class__ = LandingSite
        made.asked = self.asked
        return made


class Refusing(Registry):
    """A registry whose disk is full when one event is to be recorded."""

    event = ""

    def record(self, event: str, body: dict[str, Any], *, by: str | None = None) -> AuditRecord:
        if event == self.event:
            raise OSError("the disk is full")
        return super().record(event, body, by=by)


def site_of(folder: Path, *, signed: bool, asked: bool) -> LandingSite:
    site = LandingSite(folder, signed=signed, asked=asked)
    if signed and not asked:
        ana = site.acting("ana").registry
        assert ana.trust
        notary = ana.trust.notary()
        RootOffice(ana.trust.verifier, notary.signer).propose(
            lambda facts: facts.model_copy(update={"protected": {}})
        )
    return site


def kill_everywhere(folder: Path, site: LandingSite, step: int) -> set[str]:
    """Kill at each point in turn, check, say it again; return what was found in between."""
    site.us += 60_000_000
    trial = site.copy(folder / "trial")
    tried = points(SCRIPT, *trial.arguments("ana", ""), root=trial.folder, trace=folder / "trace")
    assert len(tried) > 20
    seen = set()
    for at, point in enumerate(tried[::step]):
        made = site.copy(folder / f"k{at}")
        dead = fail_at(SCRIPT, *made.arguments("ana", ""), point=point)
        assert dead.returncode == -9, (point, dead.stderr)
        seen.add(found(made, point))
        waits = promote(made.acting("ana"))
        assert bool(waits) == site.asked, (point, waits)
        ended(made, point)
        assert promote(made.acting("ana")) == waits
        ended(made, point)
        shutil.rmtree(made.folder)
    return seen


def found(made: LandingSite, point: object) -> str:
    """What a death left: nothing is in production, or asked about, that is not recorded."""
    registry = made.acting("ana").registry
    faults = {fault.message for fault in registry.verify()}
    assert faults <= {"the last line was cut by a crash"}, (point, faults)
    events = [record.event for record in registry.audit()]
    sealed = registry.versions(JOB) if JOB in registry.jobs() else []
    if not sealed:
        assert "promotion.accepted" not in events, point
        return "nothing"
    asked = (made.root / "jobs" / JOB / "requests" / "1.json").exists()
    moved = registry.aliases(JOB).get("production") == 1
    if asked or moved:
        assert "promotion.accepted" in events, point
        return "let in"
    return "accepted" if "promotion.accepted" in events else "sealed"


def ended(made: LandingSite, point: object) -> None:
    """One version, one record of it with its measurements, and in production or asked about."""
    registry = made.acting("ana").registry
    assert registry.verify() == [], point
    assert registry.versions(JOB) == [1], point
    bodies = [r.body for r in registry.audit() if r.event == "promotion.accepted"]
    assert [body["version"] for body in bodies] == [1], point
    assert (bodies[0]["attempt"], bodies[0]["measurements"]) == (1, MEASUREMENTS), point
    assert registry.aliases(JOB) == ({} if made.asked else {"production": 1}), point
    if made.asked:
        assert registry.requests.get(JOB, 1).state == "waiting", point
    else:
        assert len(registry.alias_history(JOB)) == 1, point


CASES = pytest.mark.parametrize(
    ("signed", "asked"),
    [
        pytest.param(False, False, id="unsigned, nobody is asked"),
        pytest.param(False, True, id="unsigned, two are asked"),
        pytest.param(True, False, id="signed, nobody is asked"),
        pytest.param(True, True, id="signed, two are asked"),
    ],
)


@CASES
@needs_strace
@pytest.mark.chaos
def test_a_killed_promotion_is_completed_by_saying_it_again(tmp_path: Path, signed, asked) -> None:
    """At a sample of the points."""
    site = site_of(tmp_path / "made", signed=signed, asked=asked)
    assert len(kill_everywhere(tmp_path, site, step=11)) >= 2


@CASES
@needs_strace
@pytest.mark.scale
@pytest.mark.timeout(1200)
def test_no_single_death_loses_a_promotion(tmp_path: Path, signed, asked) -> None:
    """At every point from the first file of the version to the last record."""
    site = site_of(tmp_path / "made", signed=signed, asked=asked)
    assert kill_everywhere(tmp_path, site, step=1) == {"nothing", "sealed", "accepted", "let in"}


@CASES
def test_a_promotion_that_fails_at_any_step_is_completed(
    tmp_path: Path, signed: bool, asked: bool
) -> None:
    """The default form, without processes: the disk refuses one record after the other."""
    site = site_of(tmp_path / "made", signed=signed, asked=asked)
    events = ["promotion.accepted", "promotion.asked"] if asked else ["promotion.accepted"]
    for at, event in enumerate(events):
        made = site.copy(tmp_path / f"k{at}")
        ana = made.acting("ana")
        ana.registry = made.refusing(event)
        with pytest.raises(OSError, match="full"):
            promote(ana)
        assert found(made, event) in ("sealed", "accepted")
        promote(made.acting("ana"))
        ended(made, event)


def test_saying_it_again_keeps_what_people_said(tmp_path: Path) -> None:
    """A version that waits is not asked about anew, nor sealed twice; the last approval lets it in."""
    site = site_of(tmp_path / "made", signed=False, asked=True)
    promote(site.acting("ana"))
    site.acting("ben").approve(JobRef(JOB, "1"))
    assert "1 of 2 approvals" in str(promote(site.acting("ana")))
    assert site.acting("ana").registry.versions(JOB) == [1]
    assert site.acting("cho").approve(JobRef(JOB, "1")).moved
    assert promote(site.acting("ana")) is None
    assert site.acting("ana").registry.versions(JOB) == [1]


def test_what_people_rejected_or_revoked_is_not_picked_up(tmp_path: Path) -> None:
    """The same promotion is another version then, and asked about anew."""
    site = site_of(tmp_path / "made", signed=False, asked=True)
    promote(site.acting("ana"))
    site.acting("ben").reject(JobRef(JOB, "1"), "no")
    assert promote(site.acting("ana"))
    ana = site.acting("ana").registry
    assert ana.versions(JOB) == [1, 2]
    ana.releases.revoke(JOB, 2, by="ana", reason="leaks")
    assert promote(site.acting("ana"))
    assert ana.versions(JOB) == [1, 2, 3]


def test_who_may_not_let_it_in_is_refused_before_anything_is_sealed(tmp_path: Path) -> None:
    """Eve promotes and is no operator; nobody is asked, so nobody else would move the alias."""
    house = House(tmp_path)
    (house.folder / "policy.yaml").write_text(NOBODY)
    world = house.world

    def hire(facts):
        people = dict(facts.people)
        entry = people["eve"].model_copy(update={"roles": ["promoter"]})
        return facts.model_copy(update={"people": {**people, "eve": entry}, "protected": {}})

    world.change_root(hire)
    with pytest.raises(ConfigurationError, match="eve does not have the role operator"):
        promote(house.acting("eve"))
    with pytest.raises(ConfigurationError, match="ben does not have the role promoter"):
        promote(house.acting("ben"))
    assert house.acting("ana").registry.jobs() == []
    assert promote(house.acting("ana")) is None
    world.change_root(lambda facts: facts.model_copy(update={"protected": {"production": "production"}}))  # fmt: skip
    house.acting("eve").admit(JOB, Wish())  # people are asked, an operator completes it


@pytest.mark.parametrize(
    "wish", [Wish("retired"), Wish("7"), Wish("other", "canary", 10), Wish(kind="shadow")]
)
def test_what_could_never_be_let_in_is_refused_before_anything_is_sealed(
    tmp_path: Path, wish: Wish
) -> None:
    """A reserved alias, a number, nothing to run beside."""
    site = site_of(tmp_path / "made", signed=False, asked=False)
    with pytest.raises(UsageError):
        site.acting("ana").admit(JOB, wish)


def test_the_record_is_the_same_from_the_evidence_alone() -> None:
    """What a completed promotion records is what it would have recorded."""
    stages = (Stage("check", passed=True, summary="good"), Stage("rehearse", passed=True, summary="x"))  # fmt: skip
    promotion = Promotion(
        job="review",
        notebook="n.ipynb",
        notebook_digest="sha256:1",
        stages=stages,
        attempt=3,
        facts={"standing": "sha256:2", "measurements": MEASUREMENTS, "waivers": []},
    )
    facts = collect(promotion, [], policy_digest="sha256:3", by="ana", git_commit=None, at_us=0)
    assert summary_of(facts) == summary(promotion, facts)
    assert summary_of({**facts, "distributions": ["a"]}) == summary(promotion, facts)


def test_a_policy_that_was_tightened_meanwhile_lets_nothing_in(tmp_path: Path) -> None:
    """Also where nobody is asked, and nothing is signed: before it is sealed, and before it moves."""
    site = site_of(tmp_path / "made", signed=False, asked=False)
    ana = site.acting("ana")
    judged = ana.bundle().digest
    sealed = ana.registry.seal(
        JOB, {"notebook.ipynb": b"{}"}, {"by": "ana", "policy_digest": judged}
    )
    policy = site.root / "policies" / "production" / "policy.yaml"
    policy.write_text(NOBODY.replace("calls: null", "calls: 3"))
    later = site.acting("ana")
    assert later.bundle().digest != judged
    with pytest.raises(ConfigurationError, match="review was promoted under another policy"):
        later.admit(JOB, Wish(), judged=judged)
    with pytest.raises(ConfigurationError, match="review@1 was promoted under another policy"):
        later.release(JOB, sealed.version, Wish())
    assert later.registry.aliases(JOB) == {}
    policy.write_text(NOBODY)
    later = site.acting("ana")
    later.admit(JOB, Wish(), judged=judged)
    assert later.release(JOB, sealed.version, Wish()) is None
    assert later.registry.aliases(JOB) == {"production": 1}
