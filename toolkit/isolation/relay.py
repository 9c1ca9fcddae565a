"""The first process inside an enclosure: a loopback port that leads to the gateway's socket.

A program of its own, for ``python -I -S``: it imports nothing but the standard library's smallest
parts, and knows nothing.  It listens on 127.0.0.1 in the enclosure's own network namespace and
copies bytes between each connection and the gateway's unix socket, so that unmodified SDKs, which
speak HTTP to a port, reach the gateway.  As process 1 it cannot be killed or stopped from inside,
and everything inside ends with it.

    relay.py PORT SOCKET      port 0: no relay, only hold the namespaces

It says ``ready`` on its standard output, and ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import socket
import sys

__all__ = ["main"]

_CHUNK = 65_536
_MOST_BUFFERED = 4 * _CHUNK
_MOST_CONNECTIONS = 400
_PR_SET_DUMPABLE = 4


class End:
    """One end of a connection, with what still has to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.other: End = self
        self.waiting = bytearray()
        self.open_in = True  # it may still send
        self.closing = False  # nothing more will be put into `waiting`
        self.closed_out = False


class Relay:
    """Copies bytes between a loopback port and a unix socket, in one thread."""

    def __init__(self, port: int, target: str) -> None:
        self._selector = selectors.DefaultSelector()
        self._target = target
        self._ends = 0
        if port:
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen(128)
            listener.setblocking(False)  # noqa: FBT003 - the socket module's own shape
            self._selector.register(listener, selectors.EVENT_READ, self._accept)
            self._listener = listener
        self._selector.register(0, selectors.EVENT_READ, self._owner)

    def run(self) -> None:
        """Serve until the owner's end of standard input closes."""
        while True:
            for key, events in self._selector.select():
                if isinstance(key.data, End):
                    self._serve(key.data, events)
                else:
                    key.data()

    def _owner(self) -> None:
        if not os.read(0, 1):
            os._exit(0)

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if self._ends >= 2 * _MOST_CONNECTIONS:
            sock.close()
            return
        out = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Local: it succeeds or fails at once, or waits for a gateway with a full backlog.
            out.settimeout(5.0)
            out.connect(self._target)
        except OSError:
            # The gateway is being started again; the client sees a reset and comes back.
            out.close()
            sock.close()
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one, two = End(sock), End(out)
        one.other, two.other = two, one
        for end in (one, two):
            end.sock.setblocking(False)  # noqa: FBT003 - the socket module's own shape
            self._selector.register(end.sock, selectors.EVENT_READ, end)
            self._ends += 1

    def _serve(self, end: End, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._write(end)
            if events & selectors.EVENT_READ:
                self._read(end)
        except OSError:
            self._drop(end)
            return
        if end.closed_out and end.other.closed_out:
            self._drop(end)
            return
        self._watch(end)
        self._watch(end.other)

    def _read(self, end: End) -> None:
        try:
            data = end.sock.recv(_CHUNK)
        except BlockingIOError:
            return
        if data:
            end.other.waiting += data
        else:
            end.open_in = False
            end.other.closing = True
        self._write(end.other)

    def _write(self, end: End) -> None:
        with contextlib.suppress(BlockingIOError):
            while end.waiting:
                sent = end.sock.send(end.waiting)
                del end.waiting[:sent]
        if end.closing and not end.waiting and not end.closed_out:
            end.closed_out = True
            with contextlib.suppress(OSError):
                end.sock.shutdown(socket.SHUT_WR)

    def _watch(self, end: End) -> None:
        wanted = 0
        if end.open_in and len(end.other.waiting) < _MOST_BUFFERED:
            wanted |= selectors.EVENT_READ
        if end.waiting:
            wanted |= selectors.EVENT_WRITE
        known = end.sock in self._selector.get_map()
        if wanted and known:
            self._selector.modify(end.sock, wanted, end)
        elif wanted:
            self._selector.register(end.sock, wanted, end)
        elif known:
            self._selector.unregister(end.sock)

    def _drop(self, end: End) -> None:
        for one in (end, end.other):
            if one.sock.fileno() >= 0:
                with contextlib.suppress(KeyError):
                    self._selector.unregister(one.sock)
                one.sock.close()
                self._ends -= 1


def main() -> None:
    """Serve the port, or only hold the namespaces."""
    # Nothing inside may trace the process that holds the way out.
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # orphans become ours; nobody waits for them
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    relay = Relay(int(sys.argv[1]), sys.argv[2])
    os.write(1, b"ready\n")
    os.close(1)
    relay.run()


if __name__ == "__main__":
    main()
