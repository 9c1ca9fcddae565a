"""Keeps a cell's output within bounds: counts, joins and, at the limit, cuts it.

Vendor-free: an output is a dictionary in the shape of the Jupyter notebook format.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from typing import Any

from toolkit.execution.facts import OutputLimits

__all__ = ["OutputKeeper", "collapse"]

# What one output costs beside its text, in memory and in the file.
_OVERHEAD = 256
# An open stream is tidied when it has grown by this much, so that a progress bar stays small.
_TIDY_BYTES = 262_144


def collapse(text: str) -> str:
    """Return ``text`` as a terminal would show it: a carriage return starts its line again.

    Linear in the length of the text.  A return at the very end stays, for what follows it.
    """
    if "\r" not in text:
        return text
    lines = []
    for line in text.split("\n"):
        core = line.rstrip("\r")
        lines.append(core.rpartition("\r")[2] + line[len(core) :][:1])
    return "\n".join(lines)


def _texts(value: Any) -> Iterator[str]:
    """Yield every text of a JSON value, in order; numbers are written out."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            for name, member in reversed(item.items()):
                stack.extend((member, str(name)))
        elif isinstance(item, list | tuple):
            stack.extend(reversed(item))
        else:
            yield str(item)


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _head(outputs: list[Any], room: int) -> list[Any]:
    """Return whole outputs from the front, and the first part of a stream that does not fit."""
    kept: list[Any] = []
    for output in outputs:
        size = sum(len(text) for text in _texts(output))
        if size > room:
            if output["output_type"] == "stream":
                kept.append({**output, "text": output["text"][:room]})
            break
        kept.append(output)
        room -= size
    return kept


def _tail(outputs: list[Any], room: int) -> list[Any]:
    """Return the last part of the stream that was written last, if it was the last output."""
    text, name = "", None
    for output in reversed(outputs):
        if output["output_type"] != "stream" or name not in (None, output["name"]):
            break
        text, name = output["text"][-room:] + text, output["name"]
        if len(text) >= room:
            break
    return [{"output_type": "stream", "name": name, "text": text[-room:]}] if text else []


class OutputKeeper:
    """The output of one run, cell after cell.

    Attributes:
        limits: See :class:`OutputLimits`.
        cell_bytes: Kept output of the current cell.
        run_bytes: Kept output of the run.
        exceeded: Whether a limit was passed; from then on nothing is kept.
    """

    def __init__(self, limits: OutputLimits) -> None:
        self.limits = limits
        self.cell_bytes = 0
        self.run_bytes = 0
        self.exceeded = False
        self._received = 0
        self._digest = hashlib.sha256()
        self._sizes: dict[tuple[str, ...], int] = {}
        self._excess: dict[str, Any] | None = None
        self._node: dict[str, Any] | None = None
        self._stream = io.StringIO()
        self._fresh = 0

    def begin_cell(self) -> None:
        """Start counting for the next cell."""
        self.cell_bytes = 0
        self._received = 0
        self._digest = hashlib.sha256()
        self._node = None

    def admit(self, content: dict[str, Any], *, joins: bool = False) -> bool:
        """Count one output message; return whether it may be kept.

        Args:
            content: Content of the message.
            joins: Whether it will be appended to the output before it, see :meth:`extends`.
        """
        if self.exceeded:
            return False
        size = 0
        for text in _texts(content):
            data = _bytes(text)
            self._digest.update(data)
            size += len(data)
        self._received += size
        self._grow(size if joins else size + _OVERHEAD)
        if self._over:
            self.exceeded = True
            if "name" in content and "text" in content:
                self._excess = {"output_type": "stream", **content}
        return not self.exceeded

    def replace(self, key: tuple[str, ...], value: Any, copies: int = 1) -> bool:
        """Count a value that replaces the one of the same key (a widget's state, a display)."""
        size = copies * sum(len(_bytes(text)) for text in _texts(value))
        self.run_bytes += size - self._sizes.get(key, 0)
        self._sizes[key] = size
        self.exceeded = self.exceeded or self._over
        return not self.exceeded

    def cleared(self) -> None:
        """Forget the current cell's output, which the notebook cleared."""
        self.run_bytes -= self.cell_bytes
        self.cell_bytes = 0
        self._node = None

    @staticmethod
    def extends(outputs: list[Any], content: dict[str, Any]) -> bool:
        """Whether this is text of the stream that the last output holds."""
        if not outputs or "text" not in content or outputs[-1].get("output_type") != "stream":
            return False
        return bool(outputs[-1]["name"] == content.get("name"))

    def join(self, outputs: list[Any], content: dict[str, Any]) -> None:
        """Append stream text to the last output, which it :meth:`extends`."""
        last = outputs[-1]
        if last is not self._node:
            self.flush()
            self._node, self._stream = last, io.StringIO()
            self._stream.write(last["text"])
            self._fresh = 0
        self._stream.write(content["text"])
        self._fresh += len(content["text"])
        if self._fresh > _TIDY_BYTES:
            self.flush()

    def flush(self) -> None:
        """Bring the open stream's text into its output."""
        if self._node is None:
            return
        text = self._stream.getvalue()
        tidy = collapse(text)
        if tidy is not text:
            self._grow(len(_bytes(tidy)) - len(_bytes(text)))
            self._stream = io.StringIO()
            self._stream.write(tidy)
        self._node["text"] = tidy
        self._fresh = 0

    def end_cell(self, outputs: list[Any]) -> tuple[list[Any], dict[str, Any] | None]:
        """Return the outputs to keep and, where a limit was passed, the facts about the cut."""
        self.flush()
        self._node = None
        if not self.exceeded:
            return outputs, None
        facts = {"received_bytes": self._received, "digest": f"sha256:{self._digest.hexdigest()}"}
        return self._cut(outputs, facts), facts

    def _cut(self, outputs: list[Any], facts: dict[str, Any]) -> list[Any]:
        size = self.limits.kept_bytes
        everything = [*outputs, self._excess] if self._excess else outputs
        notice = (
            f"\n[{facts['received_bytes']} bytes of output exceeded the limit and were cut here; "
            f"{facts['digest']} is the digest of all that arrived]\n"
        )
        middle = {"output_type": "stream", "name": "stderr", "text": notice}
        return [*_head(everything, size), middle, *_tail(everything, size)]

    @property
    def _over(self) -> bool:
        limits = self.limits
        return self.cell_bytes > limits.cell_bytes or self.run_bytes > limits.run_bytes

    def _grow(self, size: int) -> None:
        self.cell_bytes += size
        self.run_bytes += size
