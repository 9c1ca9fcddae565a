"""Another system is told that a person is asked: signed, again after failures, never in the way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from approvals_world import World, attempt, payment, write_registry

from toolkit.errors import ApprovalPending
from toolkit.gateway.approvals import Approvals
from toolkit.gateway.webhooks import Webhooks, sign
from toolkit.policy import Webhook
from toolkit.values import ManualClock

SECRET = "whsec_" + base64.b64encode(b"a key of thirty-two bytes, random").decode()


class Receiver:
    """A loopback HTTP server that answers what it was told to and keeps what came."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.came: list[tuple[dict[str, str], bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.came.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/approvals"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver():
    """A receiver that takes everything, unless the test says otherwise."""
    made = Receiver()
    yield made
    made.close()


async def no_pause(_: float) -> None:
    """Do not wait."""


def deliver(
    url: str, *, secret: str | None = SECRET, told: list[str] | None = None, pauses=(1.0, 5.0)
):
    """Send one message and wait for its end; return what was lost and why."""
    lost: list[str] = []
    pause: list[float] = []

    async def gone(why: str) -> None:
        lost.append(why)

    async def counted(seconds: float) -> None:
        pause.append(seconds)

    async def story() -> None:
        hooks = Webhooks(
            {} if secret is None else {"HOOK": secret},
            ManualClock(),
            pauses_s=pauses,
            sleep=counted,
            warn=(told if told is not None else []).append,
        )
        hooks.send(Webhook(url, "HOOK"), "ask-1", "approval.requested", {"a": 1}, lost=gone)
        await hooks.settle(10)

    asyncio.run(story())
    return lost, pause


def test_a_message_is_signed_as_standard_webhooks_says(receiver):
    """The receiver checks id, time and body with the shared key, by its own arithmetic."""
    assert deliver(receiver.url) == ([], [])
    ((headers, body),) = receiver.came
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert headers["webhook-id"] == "ask-1"
    assert int(headers["webhook-timestamp"]) == ManualClock().us // 1_000_000
    assert json.loads(body)["type"] == "approval.requested"
    assert json.loads(body)["data"] == {"a": 1}


def test_the_signature_of_the_specification_comes_out():
    """The example of the Standard Webhooks reference libraries."""
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    made = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_failures_are_tried_again_with_the_same_id(receiver):
    """After ever longer pauses; a redirect is a failure, not a way to another host."""
    receiver.statuses = [500, 302]
    assert deliver(receiver.url) == ([], [1.0, 5.0])
    assert {headers["webhook-id"] for headers, _ in receiver.came} == {"ask-1"}
    assert len(receiver.came) == 3


def test_a_message_that_cannot_be_delivered_is_told_loudly():
    """Nobody listens: a warning that names the host and no secret, and whoever sent it knows."""
    gone = Receiver()
    gone.close()
    told: list[str] = []
    lost, pauses = deliver(gone.url, told=told)
    assert pauses == [1.0, 5.0]
    assert lost == ["no answer (ConnectError), 3 attempts"]
    (warning,) = told
    assert "127.0.0.1" in warning
    assert SECRET not in warning


@pytest.mark.parametrize(
    ("url", "secret", "why"),
    [
        ("http://hooks.example.com/x", SECRET, "neither https nor on this machine"),
        ("ftp://127.0.0.1/x", SECRET, "neither https nor on this machine"),
        (None, None, "HOOK is not set"),
        (None, "whsec_???", "not base64"),
        (None, "whsec_", "empty"),
    ],
)
def test_what_cannot_be_sent_safely_is_not_sent(receiver, url, secret, why):
    """No plain HTTP to elsewhere, no unsigned message."""
    lost, pauses = deliver(url or receiver.url, secret=secret)
    assert len(lost) == 1
    assert why in lost[0]
    assert pauses == []
    assert receiver.came == []


def test_a_receiver_that_wants_no_more_is_left_alone(receiver):
    """410 ends it."""
    receiver.statuses = [410]
    lost, pauses = deliver(receiver.url)
    assert "410" in lost[0]
    assert pauses == []


def test_a_request_is_announced_once_and_a_lost_message_is_in_the_inbox(tmp_path, receiver):
    """The view goes out; when it does not arrive, the call carries that fact."""
    url = receiver.url
    hook = f", webhook: {{url: '{url}', secret_env: HOOK}}"
    write_registry(tmp_path / "registry", approvals=hook)
    world = World(tmp_path, f"sqlite:///{tmp_path / 'ledger.db'}")
    run = world.run()

    async def ask(environ, times):
        told: list[str] = []
        hooks = Webhooks(environ, world.clock, pauses_s=(), sleep=no_pause, warn=told.append)
        gateway = Approvals(world.ledger, world.desk(), hooks, world.clock)
        for _ in range(times):
            with pytest.raises(ApprovalPending):
                await attempt(world, gateway, run, payment(run))
        await gateway.close(10)
        return told

    assert asyncio.run(ask({"HOOK": SECRET}, times=2)) == []
    ((_, body),) = receiver.came
    told = json.loads(body)["data"]["approval"]
    assert told["id"] == world.only().id
    assert told["view"]["title"] == 'Pay 120 to "ben ltd"'
    (warning,) = asyncio.run(ask({}, times=1))
    assert "HOOK is not set" in warning
    (call,) = world.ledger.calls(run.run_id)
    assert "HOOK is not set" in call.tags["webhook"]
    world.close()
