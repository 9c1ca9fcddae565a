"""``with purpose("…")``: why the calls inside are made, for policy and for the record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolkit.errors import UsageError

__all__ = ["PURPOSE", "purpose"]

PURPOSE: ContextVar[str | None] = ContextVar("toolkit_purpose", default=None)
"""The purpose of the calls that are being made; asyncio tasks and ``to_thread`` inherit it."""

_LONGEST = 200


@contextmanager
def purpose(why: str) -> Iterator[None]:
    """Say why the calls inside are made: the decision or task that they serve.

    Policies can read it as ``context.purpose``; the ledger and MLflow keep it with each call.

    Args:
        why: At most 200 characters, like ``"monthly licence report"``.

    Raises:
        UsageError: The text is empty or too long.
    """
    if not isinstance(why, str) or not why.strip() or len(why) > _LONGEST:
        raise UsageError(
            f"a purpose is a text of 1 to {_LONGEST} characters",
            next_step='write, for example: with toolkit.purpose("monthly licence report"):',
        )
    token = PURPOSE.set(why.strip())
    try:
        yield
    finally:
        PURPOSE.reset(token)
