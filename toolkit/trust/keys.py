"""Public keys and what a signer is.

A key's type fixes its algorithm; nothing beside a signature can choose another.  A key's id is
the digest of its content, so that a key cannot be listed under an id that is not its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from toolkit.trust.strict import from_base64, to_base64
from toolkit.values import digest_bytes

__all__ = ["KEY_TYPES", "KeyType", "PublicKey", "Signer"]

KeyType = Literal["ed25519", "ecdsa-p256"]
KEY_TYPES: tuple[str, ...] = get_args(KeyType)

# Ed25519 points of order 1, 2, 4 and 8, by their y (RFC 8032, section 5.1): a key that is one of
# them accepts signatures that nobody made.  OpenSSL does not refuse them.
_P = 2**255 - 19
_Y8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_WEAK_Y = frozenset({0, 1, _P - 1, _Y8, _P - _Y8})


@dataclass(frozen=True)
class PublicKey:
    """A public key.

    Attributes:
        type: ``ed25519`` (RFC 8032) or ``ecdsa-p256`` (FIPS 186-5 with SHA-256, DER signatures).
        der: Its SubjectPublicKeyInfo (RFC 5280) in DER.
    """

    type: KeyType
    der: bytes

    @classmethod
    def of(cls, key: Any) -> PublicKey:
        """Wrap a key of the ``cryptography`` package.

        Raises:
            ValueError: It is neither Ed25519 nor P-256, or a weak Ed25519 key.
        """
        der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if isinstance(key, ed25519.Ed25519PublicKey):
            _check_strength(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
            return cls("ed25519", der)
        if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
            return cls("ecdsa-p256", der)
        raise ValueError("is neither an Ed25519 nor an ECDSA P-256 key")

    @classmethod
    def from_json(cls, kind: str, public: str) -> PublicKey:
        """Read a key as the root lists it: its type and its DER in base64.

        Raises:
            ValueError: The type is unknown, the content is of another type or in another form.
        """
        if kind not in KEY_TYPES:
            raise ValueError(f"type is {kind!a}, expected {' or '.join(KEY_TYPES)}")
        der = from_base64(public)
        made = cls._of_der(der)
        if made.type != kind:
            raise ValueError(f"is a key of type {made.type}, not {kind}")
        if made.der != der:  # one key in two encodings would have two ids
            raise ValueError("is not in the one form that this key has")
        return made

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a key as people hand it on: ``TYPE:BASE64``, or the base64 alone.

        Raises:
            ValueError: It is neither.
        """
        kind, colon, public = text.partition(":")
        if colon:
            return cls.from_json(kind, public)
        return cls.from_json(cls._of_der(from_base64(text)).type, text)

    @classmethod
    def _of_der(cls, der: bytes) -> PublicKey:
        try:
            key = load_der_public_key(der)
        except (UnsupportedAlgorithm, TypeError, ValueError) as error:
            # What the library says of its bytes tells a person nothing.
            raise ValueError("is not a key that this toolkit knows") from error
        return cls.of(key)

    def to_json(self) -> dict[str, str]:
        """The form that the root lists."""
        return {"type": self.type, "public": to_base64(self.der)}

    @cached_property
    def id(self) -> str:
        """Digest of type and content."""
        return digest_bytes(self.type.encode() + b"\0" + self.der)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is this key's over ``data``."""
        key: Any = load_der_public_key(self.der)
        try:
            if self.type == "ed25519":
                key.verify(signature, data)
            else:
                key.verify(signature, data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def _check_strength(raw: bytes) -> None:
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    if y >= _P or y in _WEAK_Y:
        raise ValueError("is a weak Ed25519 key")


class Signer(Protocol):
    """Something that signs: a key in a file, in a variable, in a token, at a service."""

    @property
    def public(self) -> PublicKey:
        """The public half."""
        ...

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``, as :meth:`PublicKey.verify` takes it."""
        ...
