"""DSSE envelopes: bytes, what they are, and who signed both.

Format: https://github.com/secure-systems-lab/dsse/blob/v1.0.2/envelope.md and ``protocol.md``
(pre-authentication encoding).  Signatures cover the payload's type and raw bytes; the same bytes
are parsed afterwards, never a second decoding of them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from toolkit.trust.strict import from_base64, parse_json, to_base64
from toolkit.values import Digest, digest_bytes

__all__ = ["MAX_ENVELOPE_BYTES", "PAYLOAD_TYPE", "Envelope", "Signature", "pae"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
MAX_ENVELOPE_BYTES = 4 << 20
_MAX_SIGNATURES = 64


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: ``DSSEv1 <length> <type> <length> <payload>``."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature.

    Attributes:
        keyid: Which key is said to have made it: a hint, not signed itself.
        sig: The signature's bytes.
    """

    keyid: str
    sig: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """A payload and its signatures; nothing about them has been verified.

    Attributes:
        payload: The raw bytes that were signed.
        signatures: Who is said to have signed them.
        payload_type: What the bytes are.
    """

    payload: bytes
    signatures: tuple[Signature, ...] = ()
    payload_type: str = PAYLOAD_TYPE

    @property
    def signed_bytes(self) -> bytes:
        """What every signature covers."""
        return pae(self.payload_type, self.payload)

    @property
    def digest(self) -> Digest:
        """Digest of the payload: the same whoever signs it next."""
        return digest_bytes(self.payload)

    def with_signature(self, signature: Signature) -> Envelope:
        """Return the envelope with one more signature; a key's older one is replaced."""
        kept = [old for old in self.signatures if old.keyid != signature.keyid]
        ordered = sorted((*kept, signature), key=lambda one: one.keyid)
        return Envelope(self.payload, tuple(ordered), self.payload_type)

    def to_bytes(self) -> bytes:
        """Return the one byte form that the registry keeps: a line of JSON."""
        body = {
            "payload": to_base64(self.payload),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": one.keyid, "sig": to_base64(one.sig)} for one in self.signatures
            ],
        }
        return json.dumps(body, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read an envelope that anybody may have written.

        Members that DSSE does not name are ignored, as DSSE says: nothing signs them.

        Raises:
            ValueError: It is not an envelope.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            raise ValueError(f"it is longer than {MAX_ENVELOPE_BYTES} bytes")
        body = parse_json(data)
        if not isinstance(body, dict):
            raise ValueError("it is not an object")  # noqa: TRY004 - one kind of error per file
        kind = body.get("payloadType")
        if kind != PAYLOAD_TYPE:
            raise ValueError(f"payloadType is {kind!a}, expected {PAYLOAD_TYPE!r}")
        return cls(from_base64(body.get("payload")), _signatures(body.get("signatures")))

    @classmethod
    def stored(cls, data: bytes) -> Envelope:
        """Read an envelope that the registry keeps: any other byte than its one form is refused.

        Raises:
            ValueError: It is not an envelope in that form.
        """
        envelope = cls.from_bytes(data)
        if envelope.to_bytes() != data:
            raise ValueError("its bytes are not the one form that a stored envelope has")
        return envelope


def _signatures(value: Any) -> tuple[Signature, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= _MAX_SIGNATURES:
        raise ValueError(f"signatures is not a list of 1 to {_MAX_SIGNATURES}")
    found = []
    for one in value:
        if not isinstance(one, dict) or not isinstance(one.get("keyid"), str):
            raise ValueError("a signature is not {keyid, sig}")  # noqa: TRY004 - one kind per file
        found.append(Signature(one["keyid"], from_base64(one.get("sig"))))
    ids = [one.keyid for one in found]
    if len(set(ids)) != len(ids):
        raise ValueError("a key signs twice")
    return tuple(found)
