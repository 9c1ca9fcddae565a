"""Every way a provider can fail ends in one error, with a kind, a next step and no secret."""

from __future__ import annotations

import copy
import inspect
import pickle
import socket
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ProviderError
from toolkit.providers import ModelRequest, Providers, Route
from toolkit.providers.failures import KINDS, from_httpx, from_status, httpx

ASK = ModelRequest([{"role": "user", "content": "Hello?"}])
ROUTE = Route("r", "p", "m1", 64)
KEY = "sk-proj-AbCdEf0123456789xyz"


@pytest.fixture
def fail(write_catalog):
    """Ask an address and return the error."""

    async def ask(url, route="timeout_s: 5"):
        catalog = write_catalog(f"kind: openai, base_url: '{url}/v1', api_key_env: KEY", route)
        providers = Providers(catalog, environ={"KEY": KEY})
        try:
            with pytest.raises(ProviderError) as caught:
                await providers.complete(catalog.route(None), ASK)
        finally:
            await providers.close()
        return caught.value

    return ask


def vendor_errors() -> list[type[Exception]]:
    found = [value for value in vars(httpx).values() if inspect.isclass(value)]
    return [value for value in found if issubclass(value, Exception)]


def build(kind: type[Exception]) -> Exception:
    request = httpx.Request("POST", "http://x/", headers={"authorization": KEY})
    known = {"message": KEY, "request": request, "response": httpx.Response(500, request=request)}
    wanted = [
        name
        for name, parameter in inspect.signature(kind.__init__).parameters.items()
        if name in known and parameter.kind is not parameter.VAR_POSITIONAL
    ]
    return kind(**{name: known[name] for name in wanted})


@pytest.mark.parametrize("kind", vendor_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_httpx_is_mapped(kind):
    """A class that a new httpx adds fails here until it has a line in the table."""
    error = from_httpx(build(kind), ROUTE)
    assert error.details["kind"] in KINDS
    assert error.next_step
    assert kind.__name__ in error.message
    assert "the request failed" not in error.message or kind in (
        httpx.HTTPError,
        httpx.RequestError,
    )
    assert KEY not in str(error.to_json())


def test_the_vendor_has_errors_to_map():
    """The list above is not empty by accident."""
    assert {httpx.ConnectError, httpx.ReadTimeout, httpx.InvalidURL} <= set(vendor_errors())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": {"message": "bad thing"}}, "bad_request"),
        (401, {}, "auth"),
        (402, {}, "auth"),
        (403, {}, "auth"),
        (404, {"error": {"code": "model_not_found", "message": "no such model"}}, "missing_model"),
        (404, {}, "bad_request"),
        (408, {}, "timeout"),
        (422, {}, "bad_request"),
        (429, {}, "rate_limited"),
        (500, {}, "server"),
        (503, {}, "server"),
        (504, {}, "timeout"),
        (529, {}, "server"),
        (302, {}, "server"),
    ],
)
@pytest.mark.anyio
async def test_statuses_have_kinds(fail, upstream, status, body, kind):
    """A real response with the status ends in its kind."""
    upstream.says(body, status=status, retry_after="7", location="http://127.0.0.1:9/")
    error = await fail(upstream.url)
    assert (error.details["kind"], error.details["status"]) == (kind, status)
    assert error.details["retry_after_s"] == 7
    assert error.next_step
    assert len(upstream.heard) == 1


@pytest.mark.anyio
async def test_a_refused_request_tells_the_providers_reason(fail, upstream):
    """The message of a 400 helps to correct the request."""
    upstream.says({"error": {"message": "max_tokens is too\nlarge", "code": "x"}}, status=400)
    assert "max_tokens is too large" in (await fail(upstream.url)).message


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pytest.mark.parametrize(
    "echo", [f"wrong key {KEY}", f"wrong key {KEY[:12]}***", f"Bearer {KEY}", f"…{KEY[-9:]}…"]
)
@pytest.mark.anyio
async def test_a_key_that_the_provider_repeats_is_not_passed_on(fail, upstream, status, echo):
    """Neither the key nor a piece of it is in the error, its copies or its causes."""
    upstream.says({"error": {"message": echo, "code": KEY, "type": echo}}, status=status)
    error = await fail(upstream.url)
    for seen in (error, pickle.loads(pickle.dumps(error)), copy.copy(error)):
        shown = f"{seen!r} {seen} {seen.to_json()}"
        assert not any(KEY[i : i + 8] in shown for i in range(len(KEY) - 7))
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__


@given(st.integers(300, 599), st.binary(max_size=200), st.text(max_size=20))
def test_any_status_and_body_gives_an_error(status, body, after):
    """No body makes the mapping raise something else."""
    error = from_status(status, {"retry-after": after}, body, ROUTE, key=KEY)
    assert error.details["kind"] in KINDS


@pytest.mark.anyio
async def test_a_refused_connection(fail):
    """Nobody listens: `connection`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert (await fail(f"http://127.0.0.1:{port}")).details["kind"] == "connection"


@pytest.mark.anyio
async def test_an_answer_that_does_not_come(fail, upstream):
    """The route's timeout ends the wait: `timeout`."""
    upstream.says({}, delay_s=30)
    error = await fail(upstream.url, "timeout_s: 0.2")
    assert error.details["kind"] == "timeout"
    assert "0.2 s" in error.message


@pytest.mark.parametrize(
    ("sent", "drip", "kind"),
    [
        (b"", False, "cut"),
        (b"SSH-2.0-hello\r\n", False, "cut"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{", False, "cut"),
        (
            b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
            False,
            "invalid_body",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10000\r\n\r\n", True, "timeout"),
    ],
    ids=["hangs-up", "not-http", "cut-body", "bad-gzip", "slow-drip"],
)
@pytest.mark.anyio
async def test_broken_servers(fail, sent, drip, kind):
    """Bytes on a real socket: cut, foreign, undecodable, and too slow as a whole."""
    stop = threading.Event()

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(sent)
            while drip and not stop.is_set():
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        error = await fail(f"http://127.0.0.1:{port}", "timeout_s: 0.5")
        stop.set()
        thread.join(5)
    assert error.details["kind"] == kind, error


@pytest.mark.anyio
async def test_an_endless_answer_is_cut_off(fail, upstream):
    """An answer above the size limit is not read to its end."""
    upstream.says(b'"' + b"x" * (17 * 1024 * 1024) + b'"')
    error = await fail(upstream.url, "timeout_s: 20")
    assert error.details["kind"] == "invalid_body"
    assert "larger than" in error.message
