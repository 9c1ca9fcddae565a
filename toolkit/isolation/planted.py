"""Canaries: what a probe from inside an enclosure tries to reach, planted outside for it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Self

from toolkit.errors import InfrastructureError

__all__ = ["VARIABLE", "Planted"]

VARIABLE = "TOOLKIT_PROBE_CANARY"
"""Name of the variable that holds the canary, in the process that starts the probes."""

_OPEN_FILES, _FILE_BYTES = 64, 1 << 20
_KEYS = {"x86_64": (248, 250), "aarch64": (217, 219)}
_SESSION_KEYRING, _KEYCTL_INVALIDATE = -3, 21
_IPC_PRIVATE, _IPC_RMID = 0, 0
# A stand-in for the gateway: a secret in its environment and its memory.
_VICTIM = f"""
import ctypes, os, sys
held = ctypes.create_string_buffer(os.environ[{VARIABLE!r}].encode())
print(ctypes.addressof(held), flush=True)
sys.stdin.read()
"""


class Planted:
    """Listeners, files, a process, a key and a shared segment with one canary, until closed.

    Attributes:
        canary: A word that occurs nowhere else.
        work: The working folder for the enclosure; everything else is outside of it.
        targets: What the probes need to know, JSON values.
    """

    def __init__(self) -> None:
        self.canary = f"canary{secrets.token_hex(12)}"
        self._stack = contextlib.ExitStack()
        self.targets: dict[str, Any] = {"canary": self.canary}
        self.work = Path()

    def __enter__(self) -> Self:
        try:
            self._files()
            self._process()
            self._listeners()
            self._key()
            self._segment()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def written_outside(self) -> bool:
        """Whether the probe that writes outside has left its mark."""
        return Path(self.targets["outside"]).exists()

    def _files(self) -> None:
        base = Path(tempfile.mkdtemp(prefix="probe-"))
        self._stack.callback(shutil.rmtree, base, ignore_errors=True)
        self._base = base
        self.work = base / "work"
        self.work.mkdir(mode=0o700)
        other = base / "other-run.txt"
        other.write_text(self.canary, "utf-8")
        self.targets |= {
            "file": str(other),
            "outside": str(base / "written.txt"),
            "folder": str(self.work),
            "home": self._in_home(),
            "open_files": _OPEN_FILES,
            "file_bytes": _FILE_BYTES,
        }

    def _in_home(self) -> str:
        """Plant a file in the user's home; where that cannot be written, in another public place."""
        for folder in (Path(os.path.expanduser("~")), Path("/var/tmp")):  # noqa: S108 - nothing is read from it
            with contextlib.suppress(OSError):
                number, name = tempfile.mkstemp(prefix=".toolkit-probe-", dir=folder)
                self._stack.callback(Path(name).unlink, missing_ok=True)
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    file.write(self.canary)
                return name
        return str(self._base / "other-run.txt")

    def _process(self) -> None:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _VICTIM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={VARIABLE: self.canary},
            cwd="/",
            text=True,
        )
        self._stack.callback(_end, process)
        line = process.stdout.readline() if process.stdout else ""
        if not line.strip().isdecimal():
            raise InfrastructureError("the probe's own process did not start", where="isolation")
        self.targets |= {"pid": process.pid, "memory_address": int(line)}

    def _listeners(self) -> None:
        streams = [socket.create_server(("127.0.0.1", 0))]
        for address in (str(self._base / "s"), f"\0probe-{self.canary}"):
            stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stream.bind(address)
            stream.listen(8)
            streams.append(stream)
        datagrams = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for datagram in datagrams:
            datagram.bind(("127.0.0.1", 0))
        self.targets |= {
            "tcp": streams[0].getsockname()[1],
            "unix": str(self._base / "s"),
            "abstract": f"probe-{self.canary}",
            "udp": datagrams[0].getsockname()[1],
            "dns": datagrams[1].getsockname()[1],
        }
        responder = _Responder(streams, datagrams, self.canary.encode())
        self._stack.callback(responder.close)

    def _key(self) -> None:
        """Plant a key in the session's keyring, as far as the machine has keyrings."""
        numbers = _KEYS.get(platform.machine())
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall.restype = ctypes.c_long
        name = f"probe:{self.canary[:12]}"
        body = self.canary.encode()
        self.targets |= {"key": 0, "key_name": name}
        if numbers is None:
            return
        add, keyctl = numbers
        key = libc.syscall(
            add, b"user", name.encode(), body, ctypes.c_size_t(len(body)), _SESSION_KEYRING
        )
        if key > 0:
            self.targets["key"] = key
            self._stack.callback(libc.syscall, keyctl, _KEYCTL_INVALIDATE, key)

    def _segment(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        libc.shmat.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int]
        libc.shmdt.argtypes = [ctypes.c_void_p]
        number = libc.shmget(_IPC_PRIVATE, ctypes.c_size_t(4096), 0o600)
        self.targets["shm"] = None
        if number < 0:
            return
        address = libc.shmat(number, None, 0)
        # Removed now, gone when the last one lets go: nothing is left over after a crash.
        libc.shmctl(number, _IPC_RMID, None)
        if address in {None, ctypes.c_void_p(-1).value}:
            return
        ctypes.memmove(address, self.canary.encode(), len(self.canary))
        self._stack.callback(libc.shmdt, address)
        self.targets["shm"] = number


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()


class _Responder:
    """Says the canary to everybody who comes, in one thread."""

    def __init__(
        self, streams: list[socket.socket], datagrams: list[socket.socket], word: bytes
    ) -> None:
        self._word = word
        self._selector = selectors.DefaultSelector()
        self._sockets = [*streams, *datagrams]
        self._stop, self._stopping = socket.socketpair()
        for one in self._sockets:
            one.settimeout(1.0)
            self._selector.register(one, selectors.EVENT_READ, one in streams)
        self._selector.register(self._stopping, selectors.EVENT_READ, None)
        self._thread = threading.Thread(target=self._run, name="canary", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError):
                    self._answer(key.fileobj, stream=key.data)

    def _answer(self, sock: Any, *, stream: bool) -> None:
        if stream:
            peer, _ = sock.accept()
            with peer:
                peer.sendall(self._word)
        else:
            _, sender = sock.recvfrom(512)
            sock.sendto(self._word, sender)

    def close(self) -> None:
        """End the thread and close every socket."""
        self._stop.close()
        self._thread.join(5.0)
        for one in (*self._sockets, self._stopping):
            one.close()
        self._selector.close()
