"""Server-sent events out of bytes as they come.

Format: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream.
Only ``event`` and ``data`` matter here.  Lines end with LF or CR LF and with nothing else: splitting
text at every Unicode line separator, as ``str.splitlines`` does, breaks JSON in two.  A CR alone,
which the format allows and no provider sends, is not taken for an end.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["EventParser"]

_MAX_EVENT = 4 * 1024 * 1024


class EventParser:
    """Give it bytes; it gives the events that they complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._kind = ""
        self._data: list[str] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Yield ``(event, data)`` of every event that is complete now.

        Raises:
            ValueError: It is not UTF-8, or one event is larger than 4 MiB.
        """
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_EVENT:
            msg = f"an event is larger than {_MAX_EVENT} bytes"
            raise ValueError(msg)
        for line in lines:
            yield from self._line(line.removesuffix(b"\r"))

    def _line(self, line: bytes) -> Iterator[tuple[str, str]]:
        if not line:
            if self._data:
                yield self._kind or "message", "\n".join(self._data)
            self._kind, self._data, self._size = "", [], 0
            return
        self._size += len(line)
        if self._size > _MAX_EVENT:
            msg = f"an event is larger than {_MAX_EVENT} bytes"
            raise ValueError(msg)
        name, _, value = line.decode("utf-8").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._kind = value
