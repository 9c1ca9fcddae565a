"""What comes back from outside, as a JSON value of bounded size."""

from __future__ import annotations

from typing import Any

from toolkit.errors import ToolFailed
from toolkit.tools.credentials import Secrets
from toolkit.values import canonical_bytes, digest_bytes

__all__ = ["MAX_ANSWER_BYTES", "bounded", "error_text", "reference"]

MAX_ANSWER_BYTES = 1024 * 1024
_MOST_ERROR_CHARACTERS = 2_000


def bounded(tool: str, answer: Any, most: int = MAX_ANSWER_BYTES) -> Any:
    """Return the answer if it can be recorded.

    Raises:
        ToolFailed: It cannot.
    """
    try:
        size = len(canonical_bytes(answer))
    except ValueError as error:
        raise ToolFailed(
            f"{tool} answered with a value that cannot be recorded: {error}"
        ) from error
    if size > most:
        raise ToolFailed(
            f"{tool} answered {size} bytes, more than the {most} allowed",
            next_step="ask for less at a time",
        )
    return answer


def error_text(text: str, secrets: Secrets) -> str:
    """Return what a server says about a failure: one line, short, no secret of ours."""
    concealed = secrets.conceal_text(text)
    line = " ".join("".join(c if c.isprintable() else " " for c in concealed).split())
    if len(line) > _MOST_ERROR_CHARACTERS:
        line = f"{line[:_MOST_ERROR_CHARACTERS]}…"
    return line


def reference(kind: str, media_type: str | None, data: bytes) -> dict[str, Any]:
    """Return what is kept of bytes that are not text."""
    return {
        "type": kind,
        "media_type": media_type,
        "bytes": len(data),
        "digest": digest_bytes(data),
    }
