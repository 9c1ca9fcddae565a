"""How a request is read and answered, without a framework between."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import ClientDisconnect, Request

from toolkit.client import wire
from toolkit.errors import UsageError
from toolkit.gateway.exchange import gone, headers_of, json_reply, read_body

Receive = Callable[[], Awaitable[dict[str, Any]]]


async def _unsent(_: Any) -> None:
    raise AssertionError("nothing is sent here")


def a_request(receive: Receive, *headers: tuple[bytes, bytes]) -> Request:
    return Request({"type": "http", "method": "POST", "headers": list(headers)}, receive, _unsent)


def given_in(*parts: bytes, cut: bool = False) -> Receive:
    """A client that sends a body in parts; ``cut``: and hangs up before the last one."""
    messages = [
        {"type": "http.request", "body": part, "more_body": cut or n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]
    messages += [{"type": "http.disconnect"}] * cut
    left = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(left)

    return receive


@given(st.dictionaries(st.text(), st.integers() | st.text()), st.integers(1, 9))
def test_a_body_is_read_however_it_is_cut(value: dict[str, Any], size: int):
    """The parts of a body make the object that was sent."""
    text = json.dumps(value).encode()
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    assert asyncio.run(read_body(a_request(given_in(*parts)))) == value


def test_a_body_that_is_too_large_cut_or_no_object_is_refused():
    """By what it declares, by what comes, by what it is, and by its missing end."""

    def refused(receive: Receive, *headers: tuple[bytes, bytes]) -> str:
        with pytest.raises((UsageError, ClientDisconnect)) as told:
            asyncio.run(read_body(a_request(receive, *headers)))
        return str(told.value) or told.typename

    declared = str(wire.MAX_BODY_BYTES + 1).encode()
    assert "larger than" in refused(given_in(b"{}"), (b"content-length", declared))
    assert "larger than" in refused(given_in(b"{}"), (b"content-length", b"-1"))
    assert "larger than" in refused(given_in(*[b" " * 1_000_000] * 9))
    assert "not JSON" in refused(given_in(b"{"))
    assert "not a JSON object" in refused(given_in(b"[]"))
    assert refused(given_in(b"{", cut=True)) == "ClientDisconnect"
    assert asyncio.run(read_body(a_request(given_in(b"")))) == {}


def test_whether_a_client_has_gone_is_told_without_waiting_for_news():
    """A server that waits for news of its client says nothing; one that has lost it says so at once."""

    async def look() -> None:
        news = asyncio.Event()
        lost = False

        async def receive() -> dict[str, Any]:
            if not lost:
                await news.wait()
            return {"type": "http.disconnect"}

        request = a_request(receive)
        assert not gone(request)
        assert not gone(request)
        lost = True
        assert gone(request)

    asyncio.run(look())


def test_the_first_of_several_headers_counts():
    """As in every framework: a second ``authorization`` does not replace the one that was checked."""
    request = a_request(given_in(b""), (b"authorization", b"one"), (b"authorization", b"two"))
    assert headers_of(request)["authorization"] == "one"
    assert headers_of(request) is headers_of(request)


def test_a_reply_says_its_kind_and_length():
    """What is sent is a start with the headers and the whole body."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    reply = json_reply({"a": "\u00e9"}, 404, {"X-Toolkit-Call": "k"})
    asyncio.run(reply({"type": "http"}, given_in(b""), send))  # type: ignore[arg-type]
    start, body = sent
    assert start["status"] == 404
    assert dict(start["headers"]) == {
        b"content-length": str(len(body["body"])).encode(),
        b"content-type": b"application/json",
        b"x-toolkit-call": b"k",
    }
    assert json.loads(body["body"]) == {"a": "\u00e9"}
    assert reply.headers["content-type"] == "application/json"
