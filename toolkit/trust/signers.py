"""Keys by URI: ``file:PATH``, ``env:NAME``, and schemes that other packages bring.

A package adds a scheme (``pkcs11``, ``kms`` …) by an entry point of the group
``toolkit.signers`` whose name is the scheme and whose object is called with the URI and returns
a :class:`Signer`.  None of them comes with the toolkit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from toolkit.errors import ConfigurationError, IntegrityError, ToolkitError, UsageError
from toolkit.trust.keys import KEY_TYPES, PublicKey, Signer

__all__ = ["SIGNERS_GROUP", "KeySigner", "check_own", "new_key", "open_signer"]

SIGNERS_GROUP = "toolkit.signers"
_MAX_PEM_BYTES = 1 << 14
Passphrase = Callable[[], str | None]


def _no_passphrase() -> str | None:
    return None


@dataclass(frozen=True, repr=False)
class KeySigner:
    """Signs with a private key in this process's memory.

    Attributes:
        key: A private key of the ``cryptography`` package.
        public: Its public half.
    """

    key: Any
    public: PublicKey

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``."""
        if self.public.type == "ed25519":
            made: bytes = self.key.sign(data)
        else:
            made = self.key.sign(data, ec.ECDSA(SHA256()))
        return made


def new_key(path: Path, kind: str = "ed25519", passphrase: str | None = None) -> KeySigner:
    """Make a key and write it to a file of mode 0600 that must not exist.

    Args:
        path: PKCS#8 in PEM.
        kind: ``ed25519`` or ``ecdsa-p256``.
        passphrase: Encrypts the file; without one, whoever reads the file can sign.

    Raises:
        UsageError: The type is unknown, the file exists or cannot be written.
    """
    if kind not in KEY_TYPES:
        raise UsageError(f"{kind!a} is not a type of key", next_step=f"use {', '.join(KEY_TYPES)}")
    key: Any = (
        ed25519.Ed25519PrivateKey.generate()
        if kind == "ed25519"
        else ec.generate_private_key(ec.SECP256R1())
    )
    how: KeySerializationEncryption = (
        BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise UsageError(
            f"the key cannot be written: {error.strerror}",
            where=str(path),
            next_step="name a file that does not exist, in a folder that is yours",
        ) from error
    return KeySigner(key, PublicKey.of(key.public_key()))


def open_signer(uri: str, passphrase: Passphrase = _no_passphrase) -> Signer:
    """Open the key that a URI names.

    Args:
        uri: ``file:PATH``, ``env:NAME``, or a scheme of an entry point.
        passphrase: Called only if the key is encrypted.

    Raises:
        UsageError: The scheme is not known here.
        ConfigurationError: The key is missing, open to others, encrypted or not a key.
    """
    scheme, colon, rest = uri.partition(":")
    if not colon or not rest or not scheme.isascii():
        raise UsageError(
            "a key is named by a URI", next_step="use file:PATH or env:NAME, not the key itself"
        )
    if scheme == "file":
        return _from_pem(_key_file(Path(rest).expanduser()), uri, passphrase)
    if scheme == "env":
        pem = os.environ.get(rest)
        if not pem:
            raise ConfigurationError(
                f"{rest} is not set here", where=uri, next_step=f"export {rest} with a key in PEM"
            )
        return _from_pem(pem.encode(), uri, passphrase)
    return _from_entry_point(scheme, uri)


def _key_file(path: Path) -> bytes:
    where = f"file:{path}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(
            f"the key cannot be read: {error.strerror}",
            where=where,
            next_step="name an existing key, or make one: `toolkit key new FILE`",
        ) from error
    with os.fdopen(fd, "rb") as file:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ConfigurationError("the key is not a plain file", where=where)
        if facts.st_mode & 0o077:
            raise ConfigurationError(
                f"the key is open to others (mode {facts.st_mode & 0o777:o}): it is not used",
                where=where,
                next_step=f"chmod 600 {path}; make another key if somebody may have read it",
            )
        return file.read(_MAX_PEM_BYTES)


def _from_pem(pem: bytes, uri: str, passphrase: Passphrase) -> Signer:
    secret: str | None = None
    if b"ENCRYPTED" in pem:
        secret = passphrase()
        if not secret:
            raise ConfigurationError(
                "the key is encrypted and there is no passphrase",
                where=uri,
                next_step="set TOOLKIT_KEY_PASSPHRASE, or run the command in a terminal",
            )
    try:
        key = load_pem_private_key(pem, secret.encode() if secret else None)
        return KeySigner(key, PublicKey.of(key.public_key()))
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The vendor's text is left out: it may quote what it read.
        what = "the passphrase is wrong or the key is damaged" if secret else "it is not a key"
        raise ConfigurationError(
            f"{what}: PKCS#8 in PEM with Ed25519 or ECDSA P-256 is read",
            where=uri,
            next_step="make a key with `toolkit key new FILE`",
        ) from None


def _from_entry_point(scheme: str, uri: str) -> Signer:
    found = [point for point in entry_points(group=SIGNERS_GROUP) if point.name == scheme]
    if len(found) != 1:
        known = sorted({"file", "env", *(p.name for p in entry_points(group=SIGNERS_GROUP))})
        raise UsageError(
            f"nothing here opens keys of the scheme {scheme!a}"
            if not found
            else f"{len(found)} packages open keys of the scheme {scheme!a}",
            where=f"{scheme}:…",
            next_step=f"use {', '.join(known)}, or install one package with an entry point "
            f"{scheme!a} in the group {SIGNERS_GROUP}",
        )
    try:
        signer: Signer = found[0].load()(uri)
        if not isinstance(signer.public, PublicKey):
            raise TypeError("public is not a PublicKey")  # noqa: TRY301 - told below, once
    except ToolkitError:
        raise
    except Exception as error:
        raise ConfigurationError(
            f"the package that opens {scheme} keys failed: {type(error).__name__}",
            where=f"{scheme}:…",
            next_step="see that package's documentation",
        ) from error
    return signer


def check_own(signer: Signer, data: bytes) -> bytes:
    """Sign and verify at once: a token that answers with another key's signature is found here.

    Raises:
        IntegrityError: The signature is not the key's.
    """
    made = signer.sign(data)
    if not signer.public.verify(data, made):
        raise IntegrityError("the signer returned a signature that is not its key's")
    return made
