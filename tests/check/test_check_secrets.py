"""Keys are assembled here from pieces, so that no scanner takes this file for a leak."""

from __future__ import annotations

import json
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.privacy import Category, Detector, is_secret_name


def found(text: str) -> bool:
    """Whether the rules' detector sees a credential."""
    return any(each.category is Category.SECRET for each in Detector().find(text))


MIXED = "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA" * 4
HEX = "0123456789abcdef" * 5
KEYS = {
    "OpenAI-style key": "sk-" + MIXED[:48],
    "Anthropic key": "sk-" + "ant-api03-" + MIXED[:60],
    "AWS access key": "AKIA" + "Q3EGRB7XZ2MN4KLP",
    "GitHub token": "gh" + "p_" + MIXED[:36],
    "GitLab token": "glpat" + "-" + MIXED[:20],
    "Slack token": "xox" + "b-" + "123456789012-" + MIXED[:24],
    "Google key": "AI" + "za" + MIXED[:35],
    "Stripe key": "sk_" + "live_" + MIXED[:24],
    "Hugging Face token": "hf" + "_" + MIXED[:34],
    "SendGrid key": "SG" + "." + MIXED[:22] + "." + MIXED[:43],
    "Databricks token": "dapi" + HEX[:32],
    "JSON web token": "eyJ" + MIXED[:20] + ".eyJ" + MIXED[:30] + "." + MIXED[:40],
    "private key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    "password in a URL": "postgresql://app:" + "s3cr3tpw@db.example/x",
    "Azure account key": "Account" + "Key=" + MIXED[:86] + "==",
}


@pytest.mark.parametrize("kind", sorted(KEYS))
def test_known_shapes_are_found_everywhere(kind: str, check) -> None:
    """In code, comments, markdown, outputs and metadata; and never shown."""
    key = KEYS[kind]
    report = check(
        f"x = 1\nprint('{key}')  # two",
        {"cell_type": "markdown", "source": f"use {key} please"},
        {
            "source": "y = 1",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": [f"got {key}\n"]}],
        },
        {
            "source": "z = 1",
            "outputs": [
                {
                    "output_type": "display_data",
                    "data": {"text/html": f"<b>{key}</b>"},
                    "metadata": {},
                }
            ],
        },
        {"source": "w = 1", "metadata": {"papermill": {"note": key}}},
    )
    found = [(f.rule, f.cell, f.line) for f in report.findings]
    assert found == [
        ("secret-in-source", 3, 2),
        ("secret-in-source", 4, 1),
        ("secret-in-output", 5, None),
        ("secret-in-output", 6, None),
        ("secret-in-metadata", 7, None),
    ]
    assert all(f"({kind})" in f.message for f in report.findings)
    assert key not in json.dumps(report.to_json())


@pytest.mark.parametrize(
    "source",
    [
        "password = 'tr0ub4dor'",
        'connect(host="db", password="correct-horse")',
        'config = {"db_password": "hunter22"}',
        "self.dbPassword = 'hunter22'",
        "passwd: str = 'hunter22'",
        "os.environ['SERVICE_TOKEN'] = 'a1B2c3D4e5F6g7H8'",
        "key = os.getenv('API_KEY', 'a1B2c3D4e5F6g7H8')",
        "client_secret = 'Zx81-qWe2-rTy3-uIo4'",
        "# api_key = 'a1B2c3D4e5F6g7H8'",
        "%env SERVICE_TOKEN=a1B2c3D4e5F6g7H8",
        "headers = {'Authorization': 'Bearer a1B2c3D4e5F6g7H8'}",
        "api_key <- 'a1B2c3D4e5F6g7H8'",
    ],
)
def test_literals_given_to_secret_names(source: str, check) -> None:
    """A name that says *secret* and a value that is no placeholder make a finding."""
    rules = {(f.rule, f.cell, f.line) for f in check(source).findings}
    assert ("secret-in-source", 3, 1) in rules


@pytest.mark.parametrize(
    "source",
    [
        "password = ''",
        "password = getpass()",
        "password = 'password'",
        "password = '${DB_PASSWORD}'",
        "password = 'DB_PASSWORD'",
        "api_key = 'your-api-key-0123456789'",
        "api_key = 'sk-...'",
        "api_key = 'sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx1'",
        "api_key_name = 'a1B2c3D4e5F6g7H8'",
        "token_url = 'https://login.example.com/oauth2/v2.0/token'",
        "secret_path = '/run/secrets/db1'",
        "token = 'the cat sat on 12 mats'",
        "bos_token = 'a1B2c3D4e5F6g7H8'",
        "primary_key = 'a1B2c3D4e5F6g7H8'",
        "text = 'ask-0123456789abcdefABCDEF'",
        "html = '<div class=\"sk-estimator-doc-link-12 sk-toggleable__content\">'",
        "aws = 'AKIAIOSFODNN7EXAMPLE'",
        "url = 'https://user:{password}@host'",
        "digest = 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef'",
    ],
)
def test_placeholders_and_look_alikes_are_silent(source: str) -> None:
    """Empty values, placeholders, references and names of names are not secrets."""
    assert not found(source)


def test_images_are_not_searched(check) -> None:
    """The bytes of an image contain every short pattern by chance."""
    data = {"image/png": "AAAA" + KEYS["AWS access key"]}
    cell = {
        "source": "x = 1",
        "outputs": [{"output_type": "display_data", "data": data, "metadata": {}}],
    }
    assert check(cell).findings == ()


def test_metadata_with_a_password(check) -> None:
    """papermill writes parameters into metadata; a password among them is found."""
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": spec, "papermill": {"parameters": {"db_password": "hunter22"}}}
    report = check("x = 1", metadata=metadata)
    assert [f.rule for f in report.findings] == ["secret-in-metadata"]
    assert "hunter22" not in json.dumps(report.to_json())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("password", "password"),
        ("DB_PASSWORD", "password"),
        ("dbPassword", "password"),
        ("api_key", "key"),
        ("OPENAI_API_KEY", "key"),
        ("apiKey2", "key"),
        ("token", "key"),
        ("refresh_token", "key"),
        ("max_tokens", None),
        ("eos_token", None),
        ("password_field", None),
        ("compass", None),
        ("monkey", None),
        ("key", None),
    ],
)
def test_names_that_say_secret(name: str, kind: str | None) -> None:
    """Words count where they end a name; units of text do not."""
    assert is_secret_name(name) == kind


@given(st.text(string.ascii_letters + string.digits, min_size=40, max_size=60))
@settings(max_examples=150)
def test_random_keys_are_found(body: str) -> None:
    """Any body that looks drawn at random is found behind its prefix."""
    digits = sum(c.isdigit() for c in body)
    mixed = digits >= 6 or (digits >= 2 and body.lower() != body)
    looks_random = mixed and len(set(body + "ghp_")) >= 10
    placeholder = "xxxx" in body.lower() or "todo" in body.lower()
    assert found("gh" + f"p_{body}") or not looks_random or placeholder


def test_hostile_text_takes_linear_time() -> None:
    """Long repetitive text, the usual trap of regular expressions, ends at once."""
    for piece in ("sk-", "eyJa.", "password", "a://b:c", "key = '", "-----BEGIN ", "AKIA", "a.b-"):
        text = piece * 20_000
        found(text)
