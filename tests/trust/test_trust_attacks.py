"""A hostile registry: every attack is refused, by two verifiers, with the file and the reason."""

from __future__ import annotations

import json

import pytest
from attacks import ATTACKS
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
