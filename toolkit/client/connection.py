"""One kernel's connection to its gateway.

Rules
-----
* A request that got no answer is sent again with the same ``request_id``: the gateway answers
  from the ledger if it was recorded, so nothing happens twice and nothing is lost.
* The gateway decides and records; this side only says what it is about to do and what came out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toolkit.client import wire
from toolkit.client.codec import written
from toolkit.client.environment import gateway_address, point_sdks, release_sdks
from toolkit.client.frames import CURRENT, TRIAL, TRIAL_STRIDE, Counters
from toolkit.client.launch import ensure_gateway, workspace_root
from toolkit.client.purposes import PURPOSE
from toolkit.client.transport import (
    Carrier,
    LostRequest,
    OverSocket,
    OverTcp,
    Patience,
    Reply,
    bearer,
    read_reply,
)
from toolkit.errors import GatewayUnavailable, ToolkitError, UsageError
from toolkit.values import CallKind, digest_bytes

__all__ = ["CallEvent", "Connection", "connect", "current", "disconnect", "told_reasons"]

T = TypeVar("T")

_NAP_S = 0.1
_SDKS = ("openai", "anthropic")
_TELL_S = 2.0


@dataclass(frozen=True, slots=True)
class CallEvent:
    """What a display needs to know of one finished call.

    Attributes:
        kind, name: What was called.
        state: ``ok``, ``error`` or ``denied``.
        replayed: The answer came from the ledger.
        verdict, production_verdict, reasons: What policy said (here, and in production).
        model, provider, input_tokens, output_tokens: For model calls.
        cost_usd: Dollars as text, ``None`` if unknown or not a model call.
        latency_s: Seconds in the gateway.
        trace_url: Where MLflow shows it, if the UI runs.
        depth: 0 for a top-level call.
        notes: What is remarkable about it: pairs of a subject and a line.
    """

    kind: str
    name: str
    state: str
    replayed: bool
    verdict: str
    production_verdict: str | None
    reasons: tuple[str, ...]
    model: str | None
    provider: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: str | None
    latency_s: float | None
    trace_url: str | None
    depth: int
    notes: tuple[tuple[str, str], ...] = ()


class Connection:
    """The kernel's end of the door.

    Args:
        socket: Path of the gateway's unix socket, or ``http(s)://host:port`` of a team's.
        root: The workspace, whose gateway is started again when it dies.
        token: A run's token; without one a session is opened.
        team_token: What opens a session over TCP.

    Attributes:
        run_id: The session or run that the calls belong to.
        environment: ``sandbox`` or ``production``.
        user: Who acts.
        notebook: Workspace-relative path, if known.
        listeners: Called with a :class:`CallEvent` after each call; their errors are ignored.
        watchers: Called while a call waits for a person (``toolkit.client.approvals.Watcher``).
    """

    def __init__(
        self,
        socket: str,
        *,
        root: Path | None = None,
        token: str | None = None,
        team_token: str | None = None,
    ) -> None:
        self._socket = socket
        self._root = root
        self._token = token
        self._team_token = team_token
        self._lock = threading.Lock()
        self._reviving = threading.Lock()
        self._carrier: Carrier | None = None
        self.counters = Counters()
        self.cell: str | None = None
        self.listeners: list[Callable[[CallEvent], None]] = []
        self.watchers: list[Callable[[Any], None]] = []
        self.run_id = ""
        self.environment = ""
        self.user = ""
        self.notebook: str | None = None
        self.ui_url: str | None = None

    # -- life ---------------------------------------------------------------------------------

    def open(self, *, notebook: str | None = None) -> Connection:
        """Say hello: a new sandbox session, or the run that the token belongs to."""
        if self._token is None:
            hello = self.post(
                wire.SESSIONS, {"notebook": notebook, "request_id": secrets.token_hex(16)}
            )
            self._token = str(hello["token"])
        else:
            hello = self.post(wire.STATUS, {"hello": True})
        self.run_id = str(hello["run_id"])
        self.environment = str(hello["environment"])
        self.user = str(hello["user"])
        self.notebook = hello.get("notebook")
        self.ui_url = hello.get("ui_url")
        return self

    def point_sdks(self) -> tuple[str, ...]:
        """Let SDKs that are made in this process find the gateway; see ``environment``.

        Returns the names of variables that had other values.
        """
        address = gateway_address(self._socket)
        if address is None or self._token is None:
            return ()
        return point_sdks(address, self._token)

    def close(self) -> None:
        """Close the socket; the session stays in the ledger."""
        with self._lock:
            if self._carrier is not None:
                self._carrier.close()
                self._carrier = None

    def start_cell(self, cell: str) -> None:
        """Tell that a cell begins; its calls are recorded under this id."""
        self.cell = cell
        self.counters.start_cell(cell)
        if any(name in sys.modules for name in _SDKS):
            self._tell_cell(cell)

    def _tell_cell(self, cell: str) -> None:
        """Let the gateway count the calls of SDKs in this cell, as we count ours.

        A courtesy: where it fails, a cell that is run again counts on.
        """
        body = written({"cell": cell})
        with (
            contextlib.suppress(LostRequest, ToolkitError),
            self._carried().post(wire.CELL, body, self._headers(), _TELL_S) as reply,
        ):
            read_reply(reply)

    # -- calls --------------------------------------------------------------------------------

    def identify(self, kind: CallKind, name: str, arguments: Any, **extra: Any) -> dict[str, Any]:
        """Return the identity of a call that is about to be made, as the wire carries it.

        Raises:
            UsageError: The arguments are no JSON values, or nested too deep.
        """
        frame = CURRENT.get()
        counters = frame.counters if frame else self.counters
        trial = 1 if frame else TRIAL.get()
        told = name if trial == 1 else f"{name}#{trial}"
        count = counters.next((kind.value, told, digest_bytes(written(arguments))))
        return {
            "kind": kind.value,
            "name": name,
            "arguments": arguments,
            "parent": frame.key if frame else None,
            "occurrence": count + (trial - 1) * TRIAL_STRIDE,
            "request_id": secrets.token_hex(16),
            "cell": self.cell,
            "case_id": frame.case_id if frame else None,
            **({} if (why := PURPOSE.get()) is None else {"purpose": why}),
            **extra,
        }

    def announce(self, reply: dict[str, Any], kind: CallKind, name: str) -> None:
        """Tell the listeners about a finished call."""
        if not self.listeners:
            return
        event = event_of(reply, kind, name, depth=0 if CURRENT.get() is None else 1)
        for listener in self.listeners:
            with contextlib.suppress(Exception):  # a broken display must not fail a call
                listener(event)

    def query(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask for recorded facts (status, calls)."""
        return self.post(path, body or {})

    # -- transport ----------------------------------------------------------------------------

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send one request and return its JSON answer; see :meth:`exchange`."""
        return self.exchange(path, body, read_reply)

    def exchange(self, path: str, body: dict[str, Any], take: Callable[[Reply], T]) -> T:
        """Send one request; again, if the gateway died before it answered.

        Args:
            path: One of :mod:`toolkit.client.wire`.
            body: JSON values.
            take: Reads the answer's body, which has only begun to arrive.

        Raises:
            ToolkitError: What the gateway answered, rebuilt as its own class.
            GatewayUnavailable: No gateway answered for 40 s.
            UsageError: The body is larger than 8 MiB, or cannot be written as JSON.
        """
        data = written(body)
        if len(data) > wire.MAX_BODY_BYTES:
            raise UsageError(
                f"the call holds {len(data):,} bytes; at most {wire.MAX_BODY_BYTES:,} can be sent",
                next_step="pass a reference (a path, a query) instead of the data",
            )
        patience = Patience()
        while True:
            carrier = self._carried()
            try:
                with carrier.post(path, data, self._headers()) as reply:
                    return take(reply)
            except (LostRequest, GatewayUnavailable) as error:
                if patience.ends(reached=not isinstance(error, LostRequest) or error.reached):
                    raise self._unavailable(error) from error
                self._revive(carrier)

    def _headers(self) -> dict[str, str]:
        headers = {"content-type": "application/json"}
        if (token := self._token or self._team_token) is not None:
            headers["authorization"] = bearer(token)
        return headers

    def _carried(self) -> Carrier:
        with self._lock:
            if self._carrier is None:
                remote = "://" in self._socket
                self._carrier = OverTcp(self._socket) if remote else OverSocket(self._socket)
            return self._carrier

    def _revive(self, failed: Carrier) -> None:
        """Find or start the next gateway; of many threads that lost one, the first does it."""
        with self._reviving:
            if self._carrier is failed:
                self.close()
                if self._root is not None:
                    with contextlib.suppress(GatewayUnavailable):
                        self._socket = ensure_gateway(self._root)
                        self.point_sdks()
        time.sleep(_NAP_S)

    def _unavailable(self, error: Exception) -> GatewayUnavailable:
        return GatewayUnavailable(
            f"the gateway does not answer ({error})",
            where=self._socket,
            next_step="run `toolkit doctor`; recorded calls are safe in the ledger",
        )


def event_of(reply: dict[str, Any], kind: CallKind, name: str, *, depth: int) -> CallEvent:
    """Read a gateway's reply as a :class:`CallEvent`."""
    decision = reply.get("decision") or {}
    outcome = reply.get("outcome") or {}
    usage = outcome.get("usage") or {}
    return CallEvent(
        kind=kind.value,
        name=name,
        state=outcome.get("state", "ok"),
        replayed=bool(reply.get("replayed")),
        verdict=decision.get("verdict", "allow"),
        production_verdict=decision.get("production_verdict"),
        reasons=told_reasons(decision),
        model=outcome.get("model"),
        provider=outcome.get("provider"),
        input_tokens=usage.get("input_tokens"),
        output_tokens=usage.get("output_tokens"),
        cost_usd=outcome.get("cost_usd"),
        latency_s=reply.get("latency_s"),
        trace_url=reply.get("trace_url"),
        depth=depth,
        notes=tuple((subject, text) for subject, text in reply.get("notes", ())),
    )


def told_reasons(decision: dict[str, Any]) -> tuple[str, ...]:
    """Return why a person should look at a decision: what denied it, or what production minds."""
    here, there = decision.get("reasons") or (), decision.get("production_reasons") or ()
    denied = decision.get("verdict") == "deny"
    return tuple(here if denied or not there else there)


_connection: Connection | None = None
_connecting = threading.Lock()


def connect(path: Path | None = None) -> Connection:
    """Return this process's connection, opening it on first use.

    In a run the environment names socket and token (``TOOLKIT_GATEWAY``, ``TOOLKIT_RUN_TOKEN``);
    at a team's gateway its address and a team token (``TOOLKIT_TOKEN``); else the workspace's
    gateway is found from ``path`` (default: the working folder) and started when it does not run.

    Raises:
        ConfigurationError: The notebook is not inside a workspace.
        UsageError: The address of a team's gateway is not one, or has no token.
        GatewayUnavailable: The gateway cannot be started.
    """
    global _connection  # noqa: PLW0603 - one kernel has one connection
    with _connecting:
        if _connection is None:
            fresh = _fresh(path)
            _connection = fresh.open(notebook=_notebook_name(fresh))
            if replaced := _connection.point_sdks():
                print(  # where a person sees it, once; names only
                    f"toolkit: {', '.join(replaced)} of this kernel now point at the gateway",
                    file=sys.stderr,
                )
        return _connection


def _fresh(path: Path | None) -> Connection:
    socket, token = os.environ.get(wire.ENV_SOCKET), os.environ.get(wire.ENV_TOKEN)
    if socket and token:
        return Connection(socket, token=token)
    if not socket or "://" not in socket:
        root = workspace_root(path)
        return Connection(ensure_gateway(root), root=root)
    team_token = os.environ.get(wire.ENV_TEAM_TOKEN)
    if not socket.startswith(("https://", "http://")) or not team_token:
        raise UsageError(
            "a team's gateway needs an address (http:// or https://) and a team token",
            where=f"{wire.ENV_SOCKET}, {wire.ENV_TEAM_TOKEN}",
            next_step="ask its owner for one: toolkit gateway token create --user NAME",
        )
    return Connection(socket.rstrip("/"), team_token=team_token)


def _notebook_name(connection: Connection) -> str | None:
    """Return the notebook's path relative to its workspace; Jupyter tells it by environment."""
    name = os.environ.get("JPY_SESSION_NAME")
    if not name:
        return None
    root = connection._root  # noqa: SLF001 - same module
    path = Path(name)
    if root is not None and path.is_absolute() and path.is_relative_to(root):
        return str(path.relative_to(root))
    if root is not None and not path.is_absolute():
        here = (Path.cwd() / path.name).resolve()
        if here.is_relative_to(root):
            return str(here.relative_to(root))
    return name


def current() -> Connection:
    """Return the open connection, or open it."""
    return _connection or connect()


def disconnect() -> None:
    """Close this process's connection; the next call opens a new session."""
    global _connection  # noqa: PLW0603
    with _connecting:
        if _connection is not None:
            _connection.close()
            release_sdks()
        _connection = None
