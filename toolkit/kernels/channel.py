"""Messages between whoever asks for a kernel and the kernel's keeper, over a unix socket.

A message is four bytes of length, big-endian, and that much UTF-8 JSON.  A request's descriptors
(SCM_RIGHTS of unix(7)) travel with its length.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

__all__ = ["MAX_BYTES", "peer", "receive", "send"]

MAX_BYTES = 4_000_000
_MAX_FDS = 8
_LENGTH = struct.Struct("!I")
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid of unix(7), SO_PEERCRED


def send(connection: socket.socket, message: Any, fds: tuple[int, ...] = ()) -> None:
    """Send one message, with descriptors if there are any.

    Raises:
        OSError: The other side is gone.
    """
    body = json.dumps(message).encode()
    head = _LENGTH.pack(len(body))
    if fds:
        socket.send_fds(connection, [head], list(fds))
        connection.sendall(body)
    else:
        connection.sendall(head + body)


def receive(connection: socket.socket) -> tuple[Any, list[int]]:
    """Return one message and the descriptors that came with it.

    Raises:
        EOFError: The other side is gone.
        TimeoutError: It says nothing within the socket's time-out.
        ValueError: What it says is not a message.
    """
    head, fds, _, _ = socket.recv_fds(connection, _LENGTH.size, _MAX_FDS)
    head += _exactly(connection, _LENGTH.size - len(head)) if head else b""
    if not head:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    if length > MAX_BYTES:
        msg = f"a message of {length} bytes is larger than {MAX_BYTES}"
        raise ValueError(msg)
    return json.loads(_exactly(connection, length)), fds


def _exactly(connection: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(size - len(parts))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def peer(connection: socket.socket) -> tuple[int, int]:
    """Return (process id, user id) of the other side, as the operating system knows them."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid
