"""Keys that other packages bring: an entry point opens them, and only what is the key's is believed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from trust_world import JOB, World, make_key

from toolkit.app.trusting import own_signer, use_key
from toolkit.errors import ConfigurationError, IntegrityError, UsageError
from toolkit.settings import Settings, Workspace
from toolkit.trust import SIGNERS_GROUP, Signer, open_signer

TOKEN = '''
"""A token as a package brings one: the key stays in it, and a PIN opens it."""

import os
from pathlib import Path
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.serialization import load_pem_private_key

from toolkit.trust import KeySigner, PublicKey


class Token:
    """Implements toolkit.trust.Signer; the private key is not among its members."""

    def __init__(self, slot, answers_as=None):
        key = load_pem_private_key(Path(slot).read_bytes(), None)
        other = load_pem_private_key(Path(answers_as).read_bytes(), None) if answers_as else key
        self._sign = KeySigner(other, PublicKey.of(other.public_key())).sign
        self._public = PublicKey.of(key.public_key())

    @property
    def public(self):
        return self._public

    def sign(self, data):
        return self._sign(data)


def open_token(uri):
    facts = dict(parse_qsl(uri.partition(":")[2], separator=";"))
    if os.environ.get("TOKEN_PIN") != "1234":
        raise RuntimeError("wrong PIN " + repr(os.environ.get("TOKEN_PIN")))
    return Token(facts["slot"], facts.get("answers-as"))


def open_something_else(uri):
    return uri
'''


class Packages:
    """Installs packages that bring schemes, for one test."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        patch.syspath_prepend(str(folder))
        (folder / "token_of_a_test.py").write_text(TOKEN)

    def install(self, name: str, **schemes: str) -> None:
        made = self.folder / f"{name}-1.0.dist-info"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "\n".join(
            f"{scheme} = token_of_a_test:{opens}" for scheme, opens in schemes.items()
        )
        (made / "entry_points.txt").write_text(f"[{SIGNERS_GROUP}]\n{lines}\n")


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packages:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setenv("TOKEN_PIN", "1234")
    monkeypatch.delitem(sys.modules, "token_of_a_test", raising=False)
    return Packages(folder, monkeypatch)


def slot(world: World, who: str) -> Path:
    """What the token keeps: a person's key."""
    path = world.folder / f"{who}.slot"
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(world.keys[who].key.private_bytes(*form))
    return path


def test_a_token_signs_versions_approvals_and_moves(world: World, packages: Packages) -> None:
    """Ana's Ed25519 and ben's P-256 key are opened by URI; verifiers see no difference."""
    packages.install("vendor-token", pkcs11="open_token")
    for who, kind in (("ana", "ed25519"), ("ben", "ecdsa-p256")):
        token: Signer = open_signer(f"pkcs11:token=team;slot={slot(world, who)}")
        assert (token.public, token.public.type) == (world.keys[who].public, kind)
        assert not hasattr(token, "key")
        world.keys[who] = token  # type: ignore[assignment]
    world.seal()
    world.release(1)
    assert world.production().approvals
    assert world.registry.verify() == []


def test_a_workspace_signs_with_a_token(
    world: World, packages: Packages, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By `toolkit key use` or by the variable; what is kept is the URI."""
    packages.install("vendor-token", pkcs11="open_token", kms="open_token")
    (tmp_path / "work").mkdir()
    workspace = Workspace(tmp_path / "work", Settings())
    uri = f"pkcs11:slot={slot(world, 'ana')}"
    assert use_key(workspace, uri).public == world.keys["ana"].public
    assert own_signer(workspace).public == world.keys["ana"].public
    kept = (workspace.state / "trust" / "signer").read_text()
    assert kept == f"{uri}\n"
    monkeypatch.setenv("TOOLKIT_SIGNING_KEY", f"kms:slot={slot(world, 'ben')}")
    assert own_signer(workspace).public == world.keys["ben"].public


def test_a_token_that_answers_with_another_key_is_found_at_once(
    world: World, packages: Packages
) -> None:
    """Nothing is written: the signature is verified where it is made."""
    packages.install("vendor-token", pkcs11="open_token")
    world.keys["thief"] = make_key()
    uri = f"pkcs11:slot={slot(world, 'ana')};answers-as={slot(world, 'thief')}"
    world.keys["ana"] = open_signer(uri)  # type: ignore[assignment]
    with pytest.raises(IntegrityError, match="not its key's"):
        world.seal()
    assert JOB not in world.registry.jobs() or world.registry.versions(JOB) == []


def test_what_a_package_fails_with_is_told_without_its_words(
    world: World, packages: Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may quote a PIN; neither they nor the URI are repeated."""
    packages.install("vendor-token", pkcs11="open_token", odd="open_something_else")
    monkeypatch.setenv("TOKEN_PIN", "98765")
    with pytest.raises(ConfigurationError, match="opens pkcs11 keys failed: RuntimeError") as told:
        open_signer(f"pkcs11:slot={slot(world, 'ana')};pin-value=98765")
    assert "98765" not in f"{told.value} {told.value.where} {told.value.next_step}"
    with pytest.raises(ConfigurationError, match="opens odd keys failed"):
        open_signer("odd:thing")


def test_a_scheme_has_one_package(packages: Packages) -> None:
    """None, or two, are refused: which one opens a key is no accident."""
    with pytest.raises(UsageError, match="nothing here opens keys of the scheme 'pkcs11'"):
        open_signer("pkcs11:slot=1")
    packages.install("vendor-token", pkcs11="open_token")
    packages.install("other-token", pkcs11="open_token")
    with pytest.raises(UsageError, match="2 packages open keys of the scheme 'pkcs11'"):
        open_signer("pkcs11:slot=1")
