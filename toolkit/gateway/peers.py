"""Who is at the other end of the unix socket: the kernel says, not the caller.

``SO_PEERCRED`` of unix(7) holds the process and user that called ``connect``.  The socket's mode
(0600, in a folder of mode 0700) keeps others out already; this holds even where somebody loosened
a mode, passed the socket on, or mounted the folder elsewhere.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from asyncio import BaseTransport, Transport
from dataclasses import dataclass
from typing import Any, cast

import orjson

from toolkit.errors import CallDenied
from toolkit.gateway.answering import WholeProtocol

__all__ = ["Peer", "PeerCheckedProtocol", "peer_of", "trusted"]

_log = logging.getLogger("toolkit.gateway")
_PATIENCE_S = 1.0
_UCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected.

    Attributes:
        pid, uid, gid: As they were when it connected.
    """

    pid: int
    uid: int
    gid: int


def peer_of(end: Any) -> Peer | None:
    """Return who is at the other end of a unix socket (or what behaves like one), if it says so."""
    try:
        return Peer(
            *_UCRED.unpack(end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        )
    except (OSError, AttributeError, struct.error):
        return None


def trusted(peer: Peer | None, own_uid: int) -> bool:
    """Whether a peer may talk to a gateway of ``own_uid``: the same user, or root."""
    return peer is not None and peer.uid in {own_uid, 0}


class PeerCheckedProtocol(WholeProtocol):
    """The gateway's HTTP protocol for peers of the gateway's own user; others get one 403."""

    _refused: BaseTransport | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        peer = peer_of(transport.get_extra_info("socket"))
        if trusted(peer, os.getuid()):
            super().connection_made(transport)
            # A unix socket has no address: the scope's ``client`` tells the process instead.
            self.client = ("", peer.pid if peer else 0)
            return
        who = "an unknown process" if peer is None else f"process {peer.pid} of user {peer.uid}"
        _log.warning("refused a connection of %s: not the gateway's user (%d)", who, os.getuid())
        cast("Transport", transport).write(_refusal(peer))
        # Closed with its request unread, the peer would see a reset instead of the reason.
        self._refused = transport
        self.loop.call_later(_PATIENCE_S, transport.close)

    def data_received(self, data: bytes) -> None:
        if self._refused is not None:
            self._refused.close()
        else:
            super().data_received(data)

    def eof_received(self) -> None:
        if self._refused is None:
            super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._refused is None:
            super().connection_lost(exc)


def _refusal(peer: Peer | None) -> bytes:
    error = CallDenied(
        "the gateway answers only processes of the user that it runs as",
        where=None if peer is None else f"this process runs as user {peer.uid}",
        next_step="run the notebook and the gateway as the same user, or use a team gateway",
    )
    body = orjson.dumps({"error": error.to_json()})
    head = (
        f"HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    return head.encode() + b"\r\nconnection: close\r\n\r\n" + body
