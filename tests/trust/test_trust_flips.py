"""A flipped byte anywhere in a small registry is found, and the file is named."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from second_verifier import decide
from trust_world import JOB, World, write

from toolkit.errors import ToolkitError

# What registries keep for themselves, and what a run does not look at.
_NOT_CONTENT = {".locks"}
_NOT_FOLLOWED = ("audit.jsonl", "checkpoints.jsonl")


def files(world: World) -> Iterator[Path]:
    for path in sorted(world.path.rglob("*")):
        # Its history is not signed (docs/trust.md, Limits); no run follows this file.
        if path.name == "aliases.json":
            continue
        if path.is_file() and not _NOT_CONTENT & set(path.relative_to(world.path).parts):
            yield path


def flip_and_look(world: World, path: Path, place: int, mask: int) -> None:
    """Flip bits of one byte, see it refused by all, and put it back."""
    good, name = path.read_bytes(), str(path.relative_to(world.path))
    bad = bytearray(good)
    bad[place] ^= mask
    write(path, bytes(bad))
    try:
        faults = world.registry.verify()
        assert faults, f"{name}: byte {place} ^ {mask} was accepted"
        assert any(name in fault.where for fault in faults), (name, place, faults)
        followed = not name.endswith(_NOT_FOLLOWED) and f"{JOB}/1" not in name
        if followed and "approvals/1." not in name:
            with pytest.raises(ToolkitError):
                world.reader().alias(JOB, "production")
            assert decide(world.path, None, world.clock.us, JOB, "production"), (name, place)
    finally:
        write(path, good)


def test_flipped_bytes_are_found(released: World):
    """A sample of every file; `make scale` flips every byte."""
    chance = random.Random(20)
    for path in files(released):
        size = path.stat().st_size
        for place in chance.sample(range(size), 2):
            flip_and_look(released, path, place, 1 << chance.randrange(8))
    assert released.registry.verify() == []


@pytest.mark.scale
@pytest.mark.timeout(1800)
def test_every_flipped_byte_is_found(released: World):
    """Every byte of every file of a small registry: at least 10,000 tries, none accepted."""
    tries = 0
    chance = random.Random(21)
    for path in files(released):
        for place in range(path.stat().st_size):
            flip_and_look(released, path, place, 1 << chance.randrange(8))
            tries += 1
    assert tries >= 10_000
