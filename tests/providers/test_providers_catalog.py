"""models.yaml is read with all its faults."""

from __future__ import annotations

from decimal import Decimal

import pytest

from toolkit.errors import InvalidFile, NotFound
from toolkit.providers import Catalog, RoutePrice


def test_the_committed_catalog_works_without_an_account(registry):
    """The default and the licence route use the local model at temperature 0."""
    catalog = Catalog.load(registry / "models.yaml")
    assert catalog.route(None).name == "default"
    assert {catalog.route(name).price_provider for name in ("default", "licence")} == {"local"}
    assert {route.temperature for route in catalog.routes.values()} == {0.0}
    assert (catalog.route("default").max_tokens, catalog.route("licence").max_tokens) == (256, 48)
    assert all(settings.api_key_env is None for settings in catalog.providers.values())


def test_the_commented_examples_are_valid(registry, tmp_path):
    """What a reader uncomments works as it stands."""
    lines = []
    for line in (registry / "models.yaml").read_text().splitlines():
        text = line.strip()
        known = ("# openai:", "# house:", "# anthropic:", "# fast:", "# careful:", "# steady:")
        member = text.startswith("#   ") and ":" in text
        lines.append(line.replace("# ", "", 1) if text.startswith(known) or member else line)
    path = tmp_path / "models.yaml"
    path.write_text("\n".join(lines))
    catalog = Catalog.load(path)
    assert {"fast", "house", "careful", "steady"} <= set(catalog.routes)
    assert len(catalog.route("steady").targets) == 2
    assert catalog.route("fast").price_provider == "openai"
    assert catalog.route("careful").price_provider == "anthropic"
    assert catalog.route("house").price == RoutePrice(Decimal("0.05"), Decimal("0.1"))


def test_an_unknown_route_names_the_known_ones(write_catalog):
    """A wrong route name is answered with the right ones."""
    with pytest.raises(NotFound, match=r"'zzz'; models\.yaml has r"):
        write_catalog("kind: local").route("zzz")


def test_all_faults_are_found_at_once(tmp_path):
    """Wrong kinds, unknown keys and missing keys are one error with lines."""
    path = tmp_path / "models.yaml"
    path.write_text(
        "providers:\n  a: {kind: fancy}\n  b: {kind: openai, api_key: sk-not-here}\n"
        "routes:\n  r: {provider: b, model: m}\n"
    )
    with pytest.raises(InvalidFile) as caught:
        Catalog.load(path)
    text = str(caught.value)
    for expected in [
        "models.yaml:2 providers.a.kind",
        "models.yaml:3 providers.b.api_key: is not a known key",
        "models.yaml:5 routes.r.max_tokens: is missing",
        "default_route: is missing",
    ]:
        assert expected in text, text
    assert "sk-not-here" not in str(caught.value.to_json())


def test_names_that_lead_nowhere_are_found_at_once(tmp_path):
    """A route's provider and the default route have to exist."""
    path = tmp_path / "models.yaml"
    path.write_text(
        "providers: {p: {kind: local}}\n"
        "routes: {r: {provider: q, model: m, max_tokens: 1}}\ndefault_route: s\n"
    )
    with pytest.raises(InvalidFile) as caught:
        Catalog.load(path)
    assert [fault["where"] for fault in caught.value.details["faults"]] == [
        "models.yaml:2 routes.r.provider",
        "models.yaml:3 default_route",
    ]


@pytest.mark.parametrize(
    ("provider", "words"),
    [
        ("kind: openai, base_url: 'ftp://x'", "http"),
        ("kind: openai, base_url: 'https://me:secret@x/v1'", "holds a user"),
        ("kind: openai, api_key_env: KEY, base_url: 'http://example.com/v1'", "clear text"),
        ("kind: local, base_url: 'http://127.0.0.1/v1'", "no meaning for kind local"),
        ("kind: scripted", "script is missing"),
        ("kind: openai, api_key_env: 'sk-123 456'", "api_key_env"),
    ],
)
def test_settings_that_make_no_sense_are_faults(write_catalog, provider, words):
    """Addresses, keys and options have to fit the kind; secrets are not repeated."""
    with pytest.raises(InvalidFile, match=words) as caught:
        write_catalog(provider)
    assert "me:secret" not in str(caught.value)
    assert "sk-123" not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "expected"),
    [
        ("kind: local", "local"),
        ("kind: openai", "openai"),
        ("kind: anthropic", "anthropic"),
        ("kind: openai, base_url: 'http://127.0.0.1:8000/v1'", None),
        ("kind: openai, base_url: 'https://x.example/v1', prices_as: groq", "groq"),
    ],
)
def test_prices_are_known_only_where_the_address_says_so(write_catalog, provider, expected):
    """A server of one's own has no listed price, even if it serves a model of a known name."""
    assert write_catalog(provider).route("r").price_provider == expected
