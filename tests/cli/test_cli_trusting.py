"""`trust` and `key`: what a person types wrongly is told as such, and signs nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_world import toolkit


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace of ana's, who has a key and has signed nothing yet."""
    (tmp_path / "toolkit.toml").write_text('user = "ana"\n')
    for environment in ("production", "sandbox"):
        (tmp_path / "registry" / "policies" / environment).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert toolkit("key", "new", "ana.pem").code == 0
    assert toolkit("key", "use", "file:ana.pem").code == 0
    return tmp_path


@pytest.fixture
def signed(root: Path) -> Path:
    """The same, with signing switched on."""
    done = toolkit("trust", "init", "ana", "--name", "Ana Diaz", "--email", "ana@example.com")
    assert done.code == 0, done.told
    return root


@pytest.mark.parametrize(
    "words", [("rotate",), ("refresh",), ("cosign", "triage@1"), ("remove-person", "ben")]
)
def test_what_needs_a_root_says_how_signing_is_switched_on(root, words) -> None:
    """Nothing is missing and nothing has to be restored: there never was one."""
    done = toolkit("trust", *words, "--json")
    assert (done.code, done.json["error"]["code"]) == (78, "configuration")
    assert "signing was never switched on" in done.json["error"]["message"]
    assert done.json["error"]["next_step"].startswith("switch it on: toolkit trust init")


def test_a_policy_is_required_of_environments_only(signed) -> None:
    """A name that is none would stop everything; nothing is signed."""
    refused = toolkit("trust", "rotate", "--require-policy", "staging", "--json")
    assert refused.code == 2
    assert refused.json["error"]["next_step"] == "name sandbox or production"
    assert toolkit("trust", "show", "--json").json["version"] == 1
    assert toolkit("trust", "rotate", "--require-policy", "production").code == 0
    assert toolkit("trust", "rotate", "--require-policy", "none").code == 0
    assert toolkit("trust", "show", "--json").json.get("policies") is None


def test_a_key_is_taken_as_it_is_shown(signed) -> None:
    """With its type, as in the line `public`, or as its base64 alone, as in the JSON."""
    assert toolkit("key", "new", "ben.pem").code == 0
    shown = toolkit("key", "show", "file:ben.pem", "--json").json
    who = ("--name", "Ben Ode", "--email", "ben@example.com", "--role", "approver")
    for key in (shown["public"], f"{shown['type']}:{shown['public']}"):
        done = toolkit("trust", "add-person", "ben", *who, "--key", key, "--json")
        assert done.code == 0, done.told
        assert done.json["people"]["ben"]["keys"] == [
            {"type": shown["type"], "public": shown["public"]}
        ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--key", "rsa:AAAA"), "type is 'rsa'"),
        (("--key", "ed25519:AAAA"), "is not a key that this toolkit knows"),
        (("--key", "ed25519:???"), "is not base64 text"),
        (("--role", "boss"), "there is no role 'boss'"),
    ],
)
def test_a_wrong_key_or_role_is_a_wrong_command(signed, given, told) -> None:
    """Exit code 2, in our words, with where to find the right one."""
    done = toolkit("trust", "add-person", "ana", *given, "--json")
    assert (done.code, told in done.json["error"]["message"]) == (2, True), done.told
    assert done.json["error"]["next_step"]
    assert "ASN" not in done.told


def test_there_is_always_something_to_read(signed) -> None:
    """Nothing to sign again is said, and a digest that is none comes with where to find one."""
    assert toolkit("trust", "refresh").out == "no job has a signed alias\n"
    assert toolkit("trust", "pin", "abc", "--json").json["error"]["next_step"]
    assert toolkit("registry", "log", "--limit", "-1").code == 2
