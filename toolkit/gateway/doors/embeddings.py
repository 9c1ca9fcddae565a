"""OpenAI's embeddings: ``POST /v1/embeddings``.

Protocol: https://platform.openai.com/docs/api-reference/embeddings
"""

from __future__ import annotations

import base64
import struct
from typing import Any

from toolkit.gateway.doors.reading import Asked, Body, refused
from toolkit.gateway.doors.voice import Spoken
from toolkit.values import CallRecord

__all__ = ["embedding_reply", "read_embeddings"]


def read_embeddings(value: dict[str, Any]) -> Asked:
    """Translate a request body.

    Raises:
        UsageError: It cannot be translated; the message names the member.
    """
    body = Body(value, "OpenAI's embeddings")
    model = body.need("model", str)
    given = body.need("input", str, list)
    texts = [given] if isinstance(given, str) else given
    if not texts or not all(isinstance(text, str) for text in texts):
        raise refused("input has to be text or a list of texts; tokens are not offered", "input")
    form = body.take("encoding_format", str, default="float")
    if form not in {"float", "base64"}:
        raise refused("encoding_format is neither float nor base64", "encoding_format")
    body.ignore(("user",))
    body.rest(())
    return Asked(model, {"input": texts}, options={"form": form})


def embedding_reply(asked: Asked, call: CallRecord) -> dict[str, Any]:
    """Return the answer; vectors are kept as base64 of little-endian 32-bit floats (RFC 4648)."""
    spoken = Spoken.of(call)
    answer = call.outcome.answer if call.outcome is not None else {}
    packed: list[str] = answer["embeddings"]
    return {
        "object": "list",
        "model": spoken.model,
        "data": [
            {
                "object": "embedding",
                "index": number,
                "embedding": text if asked.options["form"] == "base64" else _floats(text),
            }
            for number, text in enumerate(packed)
        ],
        "usage": {
            "prompt_tokens": spoken.usage.input_tokens,
            "total_tokens": spoken.usage.input_tokens,
        },
    }


def _floats(text: str) -> list[float]:
    data = base64.b64decode(text)
    return list(struct.unpack(f"<{len(data) // 4}f", data))
