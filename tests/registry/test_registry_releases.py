"""What runs: canaries, shadows, rollbacks, revocations, retirement, each in one step."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_world import FACTS, FILES

from toolkit.errors import ConfigurationError, NotFound, ToolkitError, UsageError
from toolkit.registry import Registry, Rollout


@pytest.fixture
def three(registry: Registry) -> Registry:
    """A job with versions 1, 2 and 3; 1 and then 2 are in production."""
    for number in (1, 2, 3):
        registry.seal("a", FILES, FACTS)
        if number < 3:
            registry.set_alias("a", "production", number, by="ana")
    return registry


def test_a_canary_gets_its_share_of_the_runs_and_always_the_same_ones(three: Registry) -> None:
    """About a tenth of the run ids; asked twice, the same answer."""
    three.releases.put_beside("a", "production", 3, 10, by="ana")
    rollout = three.releases.rollout("a")
    assert (rollout.stable, rollout.canary, rollout.share, rollout.kind) == (2, 3, 10, "canary")
    chosen = [rollout.choose(f"run-{n}") for n in range(2_000)]
    assert chosen == [rollout.choose(f"run-{n}") for n in range(2_000)]
    assert set(chosen) == {(2, "stable"), (3, "canary")}
    assert 140 <= chosen.count((3, "canary")) <= 260
    assert three.resolve("a@production").number == 2
    assert three.verify() == []


def test_a_shadow_never_is_the_run_itself(three: Registry) -> None:
    """Every run is the stable one's; the shadow is named."""
    three.releases.put_beside("a", "production", 3, None, by="ana")
    rollout = three.releases.rollout("a")
    assert (rollout.shadow, rollout.candidate, rollout.kind) == (3, 3, "shadow")
    assert {rollout.choose(f"run-{n}") for n in range(100)} == {(2, "stable")}


def test_a_canary_is_promoted_or_aborted_in_one_move(three: Registry) -> None:
    """Afterwards nothing runs beside production, and the history says what happened."""
    three.releases.put_beside("a", "production", 3, 10, by="ana")
    three.releases.abort("a", by="rule", reason="it failed too often")
    assert three.aliases("a") == {"production": 2}
    three.releases.put_beside("a", "production", 3, 5, by="ana")
    three.releases.promote("a", by="ben")
    assert three.aliases("a") == {"production": 3}
    assert [m.kind for m in three.alias_history("a")][-4:] == ["abort", "canary", "promote", "promote"]  # fmt: skip
    assert three.alias_history("a")[3].reason == "it failed too often"
    assert three.rollback("a", by="ana").after == 2
    assert three.verify() == []
    with pytest.raises(NotFound, match="nothing runs beside"):
        three.releases.promote("a", by="ana")


def test_rollback_to_a_version_that_was_there(three: Registry) -> None:
    """Only a version that the alias pointed at before."""
    three.set_alias("a", "production", 3, by="ana")
    assert three.rollback("a", by="ana", to=1).after == 1
    assert three.aliases("a") == {"production": 1}
    three.seal("a", FILES, FACTS)
    with pytest.raises(NotFound, match="never pointed at version 4"):
        three.rollback("a", by="ana", to=4)


def test_a_revoked_version_never_runs_again(three: Registry) -> None:
    """Production goes back, nothing points there any more, and the refusal names person and reason."""
    three.releases.put_beside("a", "production", 3, 10, by="ana")
    three.releases.revoke("a", 2, by="ben", reason="leaks addresses")
    assert three.aliases("a") == {"production": 1, "production.canary-10": 3, "revoked.2": 2}
    with pytest.raises(ConfigurationError, match="a@2 is revoked by ben: leaks addresses") as told:
        three.releases.check_runs("a", 2)
    assert told.value.exit_code == 78
    three.releases.check_runs("a", 1)
    for again in (
        lambda: three.set_alias("a", "production", 2, by="ana"),
        lambda: three.rollback("a", by="ana", to=2),
        lambda: three.releases.put_beside("a", "production", 2, 10, by="ana"),
    ):
        with pytest.raises(ConfigurationError, match="revoked by ben"):
            again()
    assert three.releases.revoke("a", 2, by="cho", reason="again") == []
    three.releases.revoke("a", 3, by="ben", reason="too")
    assert three.aliases("a") == {"production": 1, "revoked.2": 2, "revoked.3": 3}
    three.releases.revoke("a", 1, by="ben", reason="the last one")
    assert "production" not in three.aliases("a")
    assert three.verify() == []


def test_a_retired_job_has_no_alias_until_one_is_set(three: Registry) -> None:
    """Revocations stay; a new version in production ends the retirement."""
    three.releases.revoke("a", 1, by="ben", reason="wrong")
    three.releases.retire("a", by="ana", reason="replaced by b")
    assert three.aliases("a") == {"retired": 3, "revoked.1": 1}
    with pytest.raises(ConfigurationError, match="the job a is retired by ana: replaced by b"):
        three.releases.check_runs("a", 3)
    assert three.releases.retire("a", by="ana", reason="again") == []
    three.set_alias("a", "production", 3, by="ana")
    three.releases.check_runs("a", 3)
    assert three.aliases("a") == {"production": 3, "revoked.1": 1}
    assert three.verify() == []


@pytest.mark.parametrize("alias", ["revoked.2", "retired", "production.shadow", "x.canary-5"])
def test_reserved_aliases_are_not_set_by_hand(three: Registry, alias: str) -> None:
    """They mean something else."""
    with pytest.raises(UsageError, match="reserved"):
        three.set_alias("a", alias, 1, by="ana")


def test_what_makes_no_sense_is_refused(three: Registry) -> None:
    """No reason, no stable version, the stable version itself, a share of everything."""
    releases = three.releases
    for wrong in (
        lambda: releases.revoke("a", 1, by="ana", reason=" "),
        lambda: releases.retire("a", by="ana", reason=""),
        lambda: releases.put_beside("a", "staging", 3, 10, by="ana"),
        lambda: releases.put_beside("a", "production", 2, 10, by="ana"),
        lambda: releases.put_beside("a", "production", 3, 100, by="ana"),
    ):
        with pytest.raises(UsageError):
            wrong()
    with pytest.raises(NotFound):
        releases.revoke("a", 9, by="ana", reason="x")
    assert three.aliases("a") == {"production": 2}


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["set", "canary", "shadow", "promote", "abort", "revoke", "retire", "rollback"]
        ),
        st.integers(1, 3),
    ),
    max_size=12,
)


@settings(max_examples=25)
@given(STEPS)
def test_no_order_of_steps_lets_a_revoked_version_in(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Whatever is done: what points somewhere points at a good version, and the log agrees."""
    registry = Registry(tmp_path_factory.mktemp("r") / "registry")
    for _ in range(3):
        registry.seal("a", FILES, FACTS)
    gone: set[int] = set()
    releases = registry.releases
    for what, number in steps:
        act = {
            "set": lambda n=number: registry.set_alias("a", "production", n, by="x"),
            "canary": lambda n=number: releases.put_beside("a", "production", n, 10, by="x"),
            "shadow": lambda n=number: releases.put_beside("a", "production", n, None, by="x"),
            "promote": lambda: releases.promote("a", by="x"),
            "abort": lambda: releases.abort("a", by="x"),
            "revoke": lambda n=number: releases.revoke("a", n, by="x", reason="r"),
            "retire": lambda: releases.retire("a", by="x", reason="r"),
            "rollback": lambda: registry.rollback("a", by="x"),
        }[what]
        try:
            act()
        except ToolkitError:
            continue
        gone |= {number} if what == "revoke" else set()
        known = registry.aliases("a")
        rollout = Rollout.of("a", "production", known)
        assert {rollout.stable, rollout.candidate}.isdisjoint(gone)
        assert rollout.stable is not None or rollout.candidate is None
        assert {n for a, n in known.items() if a.startswith("revoked.")} == gone
    assert registry.verify() == []


def test_a_diff_names_packages_and_scores(registry: Registry) -> None:
    """What another lock and another evaluation changed, beside cells and parameters."""
    for version, mean in (("1.0", 0.7), ("1.1", 0.9)):
        lock = f"httpx=={version} \\\n    --hash=sha256:{'a' * 64}\nidna==3.7\n"
        evidence = {"evaluations": {"capitals": {"scores": {"correct": {"mean": mean}}}}}
        files = {
            **FILES,
            "requirements.lock": lock.encode(),
            "evidence.json": json.dumps(evidence).encode(),
        }
        registry.seal("b", files, FACTS)
    found = registry.diff("b@1", "b@2")
    assert [(c.name, c.before, c.after) for c in found.packages] == [("httpx", "1.0", "1.1")]
    assert [(c.name, c.before, c.after) for c in found.scores] == [("capitals/correct", 0.7, 0.9)]
