"""A kernel that is killed at each point of a write: one effect, or a doubt that is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from gateway_world import open_run
from loopback_world import serving

from toolkit.client import Connection, wire
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallState, Environment, RunKind

pytestmark = pytest.mark.chaos

KERNEL = """
import os, signal, sys, urllib.request
import toolkit

die, url = sys.argv[1:3]

def point(name):
    if name == die:
        os.kill(os.getpid(), signal.SIGKILL)

@toolkit.tool(effect="write", idempotent=%s)
def pay(amount: int) -> str:
    point("after begin")
    request = urllib.request.Request(url, data=str(amount).encode())
    request.add_header("Idempotency-Key", toolkit.idempotency_key())
    with urllib.request.urlopen(request, timeout=10) as reply:
        said = reply.read().decode()
    point("after body")
    return said

point("before begin")
try:
    print(pay(120))
except toolkit.errors.CallInDoubt as error:
    print("in doubt:", error)
point("after finish")
"""


class Bank:
    """A real server that keeps the idempotency key of every payment that it was asked for."""

    def __init__(self) -> None:
        keys = self.keys = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                keys.append(self.headers["Idempotency-Key"])
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"paid")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"


@pytest.fixture(scope="module")
def bank() -> Iterator[Bank]:
    made = Bank()
    with serving(made.server):
        yield made


def attempt(kernel: Connection, bank: Bank, die: str, *, idempotent: bool) -> tuple[int, str]:
    """Run a kernel of its own to its end, or to its death; return its status and what it said."""
    environment = {
        **os.environ,
        wire.ENV_SOCKET: kernel._socket,
        wire.ENV_TOKEN: str(kernel._token),
    }
    code = "import toolkit.errors\n" + KERNEL % idempotent
    done = subprocess.run(
        [sys.executable, "-c", code, die, bank.url],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case",
    [
        ("before begin", False, 1, "paid"),
        ("after begin", False, 0, "in doubt"),
        ("after body", False, 1, "in doubt"),
        ("after finish", False, 1, "paid"),
        ("after begin", True, 1, "paid"),
        ("after body", True, 2, "paid"),  # two requests with one key: one payment
    ],
)
def test_a_killed_kernel_pays_once_or_is_in_doubt(
    case: tuple[str, bool, int, str],
    workspace: Workspace,
    connection: Connection,
    bank: Bank,
) -> None:
    """Never two payments, and never a doubt that nobody is told."""
    del connection  # only its gateway is needed
    die, idempotent, paid, said = case
    run_id = f"run-{die}-{idempotent}".replace(" ", "-").lower()
    facts = {"kind": RunKind.TRIAL, "environment": Environment.SANDBOX}
    before = len(bank.keys)
    code, _ = attempt(open_run(workspace, run_id, **facts), bank, die, idempotent=idempotent)
    assert code == -signal.SIGKILL
    code, told = attempt(open_run(workspace, run_id, **facts), bank, "never", idempotent=idempotent)
    assert code == 0, told
    assert said in told
    keys = bank.keys[before:]
    assert (len(keys), len(set(keys))) == (paid, min(paid, 1))
    with Ledger.open(workspace.database_url) as ledger:
        (call,) = ledger.calls(run_id)
        assert call.state is (CallState.STARTED if said == "in doubt" else CallState.OK)
        assert set(keys) <= {call.idempotency_key}
        assert ledger.verify(run_id) == []
