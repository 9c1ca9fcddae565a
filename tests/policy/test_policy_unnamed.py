"""What the user did not name, and what a catalog says of entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit.policy import PolicyBundle, PolicyRequest, ToolCatalog
from toolkit.values import Effect, Environment, Labels, Source, Verdict

TOOLS = """\
tools:
  drop:
    effect: write
    description: Drops a record.
    arguments: {record: {type: string, role: target}, why: {type: string, role: content}}
  list_records:
    effect: read
    description: Lists records.
    labels: {sources: [untrusted], entries: [name, id]}
"""
RULES = """\
@id("p") permit(principal, action, resource);
@id("named") forbid(principal, action == Action::"call_tool", resource)
when { context.unnamed_roles.contains("target") };
"""


@pytest.fixture
def bundle(tmp_path: Path, limits_text: str) -> PolicyBundle:
    folder = tmp_path / "policies" / "production"
    folder.mkdir(parents=True)
    (tmp_path / "tools.yaml").write_text(TOOLS)
    (folder / "policy.yaml").write_text(limits_text)
    (folder / "rules.cedar").write_text(RULES)
    return PolicyBundle.load(folder)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ({Source.USER}, Verdict.ALLOW),
        ({Source.INTERNAL}, Verdict.DENY),
        ({Source.UNTRUSTED}, Verdict.DENY),
        ({Source.DERIVED}, Verdict.DENY),
        ({Source.USER, Source.INTERNAL}, Verdict.DENY),
        (set(), Verdict.DENY),
    ],
)
def test_only_what_the_user_named_entirely_is_named(
    bundle: PolicyBundle, sources: set[Source], expected: Verdict
) -> None:
    """No sources stand for a value that says nothing, such as a short number."""
    request = PolicyRequest(
        user="ana",
        action="call_tool",
        resource="drop",
        environment=Environment.PRODUCTION,
        effect=Effect.WRITE,
        arguments={"record": "13", "why": "x"},
        labels={"record": Labels(frozenset(sources)), "why": Labels(frozenset({Source.DERIVED}))},
    )
    assert bundle.decide(request).verdict is expected


def test_entries_are_part_of_a_catalogs_digest(tmp_path: Path) -> None:
    """Who vouches is policy; a catalog without entries keeps the digest that it had."""
    path = tmp_path / "tools.yaml"
    path.write_text(TOOLS)
    with_entries = ToolCatalog.load(path)
    path.write_text(TOOLS.replace(", entries: [name, id]", ""))
    without = ToolCatalog.load(path)
    assert with_entries["list_records"].entries == ("id", "name")
    assert with_entries.digest != without.digest
    assert "entries" not in without["list_records"].to_json()
