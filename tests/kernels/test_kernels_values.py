"""Plans and messages come back as they were sent."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.kernels import PROVISIONER_NAME, KernelPlan, channel, kernel_spec
from toolkit.values import Caps, IsolationLevel

NUMBERS = st.none() | st.integers(1, 2**40)
PATHS = st.lists(st.sampled_from([Path("/a"), Path("b/c")])).map(tuple)
PLANS = st.builds(
    KernelPlan,
    level=st.sampled_from(IsolationLevel),
    caps=st.builds(Caps, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS),
    readable=PATHS,
    hidden=PATHS,
    warm=st.booleans(),
    zygotes=st.none() | st.just(Path("/z")),
    wait_s=st.floats(0, 60),
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    st.lists,
    max_leaves=9,
)


@given(PLANS)
def test_a_plan_survives_a_kernelspec(plan: KernelPlan):
    """What a kernelspec carries as JSON is the plan that was put there."""
    spec = json.loads(json.dumps(kernel_spec(Path("/py"), plan)))
    chosen = spec["metadata"]["kernel_provisioner"]
    assert chosen["provisioner_name"] == PROVISIONER_NAME
    assert KernelPlan.from_config(chosen["config"]) == plan


@given(VALUES)
def test_a_message_arrives_as_it_was_sent(value: object):
    """Over a real socket, one message after the other."""
    one, other = socket.socketpair()
    with one, other:
        channel.send(one, value)
        channel.send(one, [value])
        assert channel.receive(other) == (value, [])
        assert channel.receive(other) == ([value], [])
        one.close()
        with pytest.raises(EOFError):
            channel.receive(other)


@given(st.binary(max_size=40))
def test_noise_is_an_error_that_the_keeper_knows(noise: bytes):
    """Whatever arrives, reading it ends in a value or in one of the errors that are caught."""
    one, other = socket.socketpair()
    with one, other:
        one.sendall(noise)
        one.close()
        with contextlib.suppress(OSError, EOFError, ValueError):
            channel.receive(other)
