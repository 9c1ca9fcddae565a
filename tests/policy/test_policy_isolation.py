"""``isolation`` of policy.yaml."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.policy.isolation import parse_size
from toolkit.policy.limits import Limits, parse_limits
from toolkit.values import Caps, IsolationLevel

L0, L1, L2, L3 = IsolationLevel
REST = """
environment: production
mode: enforce
unknown_price: deny
require_results: true
budget: {usd: null, tokens: null, calls: null, seconds: null}
"""


def read(text: str) -> Limits:
    limits, faults = parse_limits((REST + text).encode(), "policy.yaml")
    assert limits is not None, faults
    return limits


def test_the_old_form_means_what_it_meant() -> None:
    """A policy of an earlier release asks for its minimum and prefers nothing more."""
    found = read("minimum_isolation: sandbox").isolation
    assert (found.minimum, found.preferred, found.caps) == (L2, L2, Caps())


def test_levels_and_caps_are_read() -> None:
    """Sizes have units; everything but the minimum may be left out."""
    found = read(
        "isolation: {minimum: L1, preferred: L3, memory: 2GiB, processes: 256, cpu_s: 600, "
        "file: 100MiB, open_files: 1024}"
    )
    assert found.isolation.preferred is L3
    assert found.minimum_isolation == "limits"
    assert found.isolation.caps == Caps(2 << 30, 256, 600, 100 << 20, 1024)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("isolation: {}", "says no minimum_isolation"),
        ("minimum_isolation: limits\nisolation: {minimum: L2}", "differs"),
        ("minimum_isolation: sandbox\nisolation: {preferred: L1}", "below the minimum"),
        ("isolation: {minimum: L4}", "is not a level"),
        ("isolation: {minimum: L1, memory: 2GB}", "is not a size"),
        ("isolation: {minimum: L1, memory: 1MiB}", "greater than or equal"),
        ("isolation: {minimum: L1, processes: 1}", "greater than or equal"),
        ("isolation: {minimum: L1, gpu: 1}", "gpu"),
    ],
)
def test_faults_are_named(text: str, said: str) -> None:
    """A typo must never mean less isolation."""
    limits, faults = parse_limits((REST + text).encode(), "policy.yaml")
    assert limits is None
    assert any(said in fault.message or said in fault.where for fault in faults), faults


@given(st.text(max_size=12))
def test_a_size_is_a_number_with_a_unit(text: str) -> None:
    """Everything else is refused."""
    try:
        size = parse_size(text)
    except ValueError:
        return
    assert size > 0
    assert text.isascii()
    assert text[-3:] in {"KiB", "MiB", "GiB", "TiB"}
