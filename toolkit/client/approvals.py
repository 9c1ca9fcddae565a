"""Calls that wait for a person: the kernel shows them, waits, and sends the call again.

Nothing hangs for days: a call that nobody has decided about is answered at once with
:class:`~toolkit.errors.ApprovalPending`, and this side asks every 20 seconds how it stands.
Interrupting the cell takes the request back.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toolkit.client import wire
from toolkit.errors import ApprovalPending, ToolkitError

if TYPE_CHECKING:
    from toolkit.client.connection import Connection

__all__ = ["Waiting", "call", "wait"]

_LOOK_S = 20.0


@dataclass(frozen=True)
class Waiting:
    """A call of this kernel that waits for a person.

    Attributes:
        connection: The kernel's connection.
        approval: What the gateway tells about the request: ``id``, ``state``, ``waiting``,
            ``role``, ``view``, ``arguments``, ``digest``, ``expires_at`` …
    """

    connection: Connection
    approval: dict[str, Any]

    def answer(
        self,
        choice: str,
        *,
        reason: str | None = None,
        arguments: dict[str, Any] | None = None,
        role: str | None = None,
    ) -> dict[str, Any]:
        """Answer the request as the person that the sandbox session belongs to.

        Args:
            choice: ``approve``, ``reject``, ``escalate`` or ``stop``.
            reason: Told to whoever made the call; a rejection needs one.
            arguments: With ``approve``: the arguments to use instead.
            role: With ``escalate``: who decides instead.

        Returns:
            The request as it stands now.

        Raises:
            CallDenied, Conflict, UsageError: This person may not, somebody was first, or the
                answer does not fit together.
        """
        body = {
            "id": self.approval["id"],
            "digest": self.approval["digest"],
            "choice": choice,
            "reason": reason,
            "arguments": arguments,
            "role": role,
        }
        approval: dict[str, Any] = self.connection.post(wire.ANSWER_APPROVAL, body)["approval"]
        return approval


Watcher = Callable[[Waiting], None]
"""Told when a call begins to wait, when its request changes, and when it is decided."""


def call(connection: Connection, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """Send a call; where a person has to decide about it first, wait and send it again.

    Raises:
        ToolkitError: See ``Connection.post``.
    """
    while True:
        try:
            return connection.post(path, request)
        except ApprovalPending as pending:
            wait(connection, pending)


def wait(connection: Connection, pending: ApprovalPending) -> dict[str, Any]:
    """Wait until a request is decided or has expired, and return how it stands then.

    Raises:
        KeyboardInterrupt: The person interrupted the cell; the request was taken back.
    """
    approval: dict[str, Any] = pending.details["approval"]
    _tell(connection, approval, pending.message)
    try:
        while approval["waiting"]:
            body = {"id": approval["id"], "wait_s": _LOOK_S}
            before, approval = approval, connection.post(wire.APPROVAL, body)["approval"]
            if not approval["waiting"] or approval["role"] != before["role"]:
                _tell(connection, approval)
    except KeyboardInterrupt:
        taken_back = {**_answer(approval), "reason": "taken back: the cell was interrupted"}
        with contextlib.suppress(ToolkitError):
            approval = connection.post(wire.ANSWER_APPROVAL, taken_back)["approval"]
        _tell(connection, approval)
        raise
    return approval


def _answer(approval: dict[str, Any]) -> dict[str, Any]:
    return {"id": approval["id"], "digest": approval["digest"], "choice": "reject"}


def _tell(connection: Connection, approval: dict[str, Any], message: str | None = None) -> None:
    waiting = Waiting(connection, approval)
    for watcher in list(connection.watchers):
        with contextlib.suppress(Exception):  # a broken display must not fail a call
            watcher(waiting)
    if message and not connection.watchers:
        print(message, file=sys.stderr)
