"""What calls cost, exactly, from data that is on the disk."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.providers import ModelRequest, Route, RoutePrice, price, worst_case
from toolkit.values import Money, Usage

LOCAL = Route("r", "local", "m", 48, price_provider="local")
ASK = ModelRequest([{"role": "user", "content": "Hello?"}])


def test_listed_prices_count_cached_tokens_apart():
    """500 of 1,000 input tokens from the cache cost half of the input price."""
    assert price("openai", "gpt-4o-mini", Usage(1000, 100, 500)) == Money.of_usd("0.0001725")
    assert price("openai", "gpt-4o-mini", Usage(1000, 100)) == Money.of_usd("0.00021")


def test_unknown_is_none_and_local_is_free():
    """An unknown price is never zero."""
    assert price("openai", "no-such-model", Usage(1, 1)) is None
    assert price("nobody", "gpt-4o-mini", Usage(1, 1)) is None
    assert price("local", "anything", Usage(10**9, 10**9)) == Money(0)
    unpriced = replace(LOCAL, price_provider=None)
    assert price("house", "gpt-4o-mini", Usage(1, 1), route=unpriced) is None


def test_a_snapshot_that_is_not_listed_costs_what_its_route_says():
    """The answer may name a dated model; the route's model is looked up then."""
    route = replace(LOCAL, provider="p", model="gpt-4o-mini", price_provider="openai")
    found = price("p", "unheard-of-snapshot", Usage(1000, 100), route=route)
    assert found == Money.of_usd("0.00021")


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.decimals(0, 1000, places=3),
    st.decimals(0, 1000, places=3),
)  # fmt: skip
def test_stated_prices_win_and_are_exact(inputs, outputs, per_input, per_output):
    """A route's price is exact to the nano-dollar, and beats the table and `local`."""
    route = replace(LOCAL, price=RoutePrice(per_input, per_output))
    expected = (per_input * inputs + per_output * outputs) / Decimal(10**6)
    found = price("local", "m", Usage(inputs, outputs), route=route)
    assert abs(found.usd - expected) <= Decimal("5e-10")


@given(
    st.lists(st.tuples(st.sampled_from(["user", "system"]), st.text(max_size=50)), min_size=1),
    st.integers(1, 100),
)
def test_the_bound_is_never_below_the_bytes(messages, asked):
    """Input is bounded by bytes of UTF-8, output by the smaller of request and route."""
    request = ModelRequest([{"role": r, "content": c} for r, c in messages], max_tokens=asked)
    money, tokens = worst_case(LOCAL, request)
    size = sum(len(content.encode()) for _, content in messages)
    assert tokens >= size + min(asked, 48)
    assert money == Money(0)


def test_more_text_never_costs_less_in_the_worst_case():
    """The bound grows with messages, tools and schema."""
    route = replace(LOCAL, price=RoutePrice(Decimal(1), Decimal(2)))
    more = ModelRequest(ASK.messages * 2, schema={"type": "object"})
    assert worst_case(route, ASK)[0] < worst_case(route, more)[0]


def test_pictures_have_no_bound():
    """Parts that are not text make the money unknown, except where everything is free."""
    message = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
    request = ModelRequest([message])
    route = replace(LOCAL, model="gpt-4o-mini", price_provider="openai")
    assert worst_case(route, request)[0] is None
    assert worst_case(LOCAL, request)[0] == Money(0)


@pytest.mark.parametrize("model", ["gpt-4o-mini", "no-such-model"])
def test_prices_never_touch_the_network(model):
    """A process that looks up prices opens no connection and resolves no name."""
    code = f"""
import sys
def watch(event, args):
    if event.startswith(("socket.connect", "socket.getaddrinfo", "socket.sendto")):
        print("NETWORK", event); sys.stdout.flush()
sys.addaudithook(watch)
from toolkit.providers import price
from toolkit.values import Usage
print(price("openai", {model!r}, Usage(1000, 0)))
import threading
print(threading.active_count())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = "$0.00015" if model == "gpt-4o-mini" else "None"
    assert done.stdout.split() == [expected, "1"]
