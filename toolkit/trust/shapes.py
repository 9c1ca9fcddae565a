"""The parts that signed things are made of: names, times, digests, counts, frozen members."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)

from toolkit.errors import UsageError
from toolkit.values import check_name

__all__ = [
    "Amount",
    "Count",
    "DigestText",
    "Frozen",
    "Name",
    "Nonce",
    "Text",
    "Utc",
    "digest_text",
    "shape_faults",
    "time_us",
]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_COUNT = 2**53 - 1


def time_us(text: str) -> int:
    """Return microseconds since the epoch of ``2026-11-21T05:16:01.000000Z``.

    Raises:
        ValueError: It is not a time in that form.
    """
    if not _TIME.fullmatch(text):
        raise ValueError("is not a time such as 2026-11-21T05:16:01.000000Z")
    since = datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _time(text: str) -> str:
    time_us(text)
    return text


def digest_text(text: str) -> str:
    """Return a digest as it is; raises :class:`ValueError` if it is none."""
    if not _DIGEST.fullmatch(text):
        raise ValueError("is not 'sha256:' and 64 hex digits")
    return text


def _name(text: str) -> str:
    try:
        return check_name(text)
    except UsageError as error:
        raise ValueError(f"is not a name: {error.next_step}") from error


def _text(text: str) -> str:
    if not text.strip() or not text.isprintable():
        raise ValueError("is empty or holds characters that cannot be seen")
    return text


Utc = Annotated[str, AfterValidator(_time)]
DigestText = Annotated[str, AfterValidator(digest_text)]
Name = Annotated[str, AfterValidator(_name)]
Text = Annotated[str, Field(max_length=256), AfterValidator(_text)]
Count = Annotated[int, Field(ge=1, le=_MAX_COUNT)]
Amount = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
Nonce = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Frozen(BaseModel):
    """A part of what is signed: its members exactly, of their types exactly.

    Attributes:
        added: Members of format 2; ``None`` is *not said*, and is not written.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    added: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _said(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        members: dict[str, Any] = plain(self)
        return {k: v for k, v in members.items() if k not in self.added or v is not None}

    @property
    def newer(self) -> bool:
        """Whether it says something that format 1 could not."""
        return any(getattr(self, name) is not None for name in self.added)


def shape_faults(error: ValidationError) -> list[str]:
    """Return ``member: what is wrong`` for each fault; values are never repeated."""
    return [
        ".".join(map(str, item["loc"])) + ": " + item["msg"].removeprefix("Value error, ")
        for item in error.errors(include_input=False, include_url=False, include_context=False)
    ]
