"""A hostile registry: every attack is refused, by two verifiers, with the file and the reason."""

from __future__ import annotations

import json

import pytest
from attacks import ATTACKS, FOR_A_FRESH_MACHINE
from second_verifier import decide
from trust_world import JOB, World

from toolkit.errors import ConfigurationError, IntegrityError, InvalidFile


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_is_refused_with_the_file_and_the_reason(released: World, name: str):
    """Neither verifier accepts what the attack left; the first says where and why."""
    attack, reason = ATTACKS[name]
    world, old = released, released.folder / "kept-old"
    state = world.state_path.read_bytes
    assert world.production().version.promotion.version == 2
    assert decide(world.path, json.loads(state()), world.clock.us, JOB, "production") is None

    attack(world, old)

    kept = state()
    with pytest.raises((IntegrityError, InvalidFile), match=reason) as refused:
        world.production()
    assert refused.value.where
    assert refused.value.next_step
    assert state() == kept, "a refused look must not be remembered"
    assert decide(world.path, json.loads(kept), world.clock.us, JOB, "production")
    with pytest.raises(ConfigurationError):
        world.registry.load(world.registry.resolve(f"{JOB}@production"))


@pytest.mark.parametrize("name", FOR_A_FRESH_MACHINE)
def test_a_machine_that_never_saw_the_registry_refuses_it_too(released: World, name: str):
    """What is signed names each other: no memory is needed, and the two verifiers agree."""
    attack, reason = ATTACKS[name]
    assert released.reader().alias(JOB, "production").version.promotion.version == 2

    attack(released, released.folder / "kept-old")

    with pytest.raises((IntegrityError, InvalidFile), match=reason):
        released.reader(released.folder / "newer" / "s").alias(JOB, "production")
    assert decide(released.path, None, released.clock.us, JOB, "production")
