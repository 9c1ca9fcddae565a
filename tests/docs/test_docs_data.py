"""The examples of docs/data.md are files that the real loaders take, and say what the page says."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs_pages import ROOT, blocks

from toolkit.policy import PolicyBundle, PolicyRequest
from toolkit.sources import DataCatalog
from toolkit.values import Environment, Verdict

LIMITS = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1", tokens: 1, calls: 1, seconds: 1}
"""


def on_the_page(language: str) -> str:
    (block,) = [block for block in blocks(language) if block.page == "docs/data.md"]
    return block.text


def test_the_catalog_shown_loads(tmp_path: Path):
    """One source of every kind."""
    path = tmp_path / "data.yaml"
    path.write_text(on_the_page("yaml"), "utf-8")
    sources = DataCatalog.load(path).sources
    assert {source.kind for source in sources.values()} == {"sql", "files", "http"}


@pytest.mark.parametrize(
    ("columns", "verdict"),
    [(["orders.id"], Verdict.ALLOW), (["orders.email", "orders.id"], Verdict.DENY)],
)
def test_the_policy_shown_forbids_the_column(tmp_path: Path, columns: list[str], verdict: Verdict):
    """Reads are permitted, the column is not, and the reason is the policy's own."""
    folder = tmp_path / "policies" / "production"
    folder.mkdir(parents=True)
    (folder / "policy.yaml").write_text(LIMITS, "utf-8")
    (folder / "rules.cedar").write_text(on_the_page("cedar"), "utf-8")
    facts = {"source": "orders", "tables": ["orders"], "columns": columns, "write": False}
    asked = PolicyRequest("ana", "call_data", "orders", Environment.PRODUCTION, facts=facts)
    decision = PolicyBundle.load(folder).decide(asked)
    assert decision.verdict is verdict
    if verdict is Verdict.DENY:
        assert decision.reasons == ("emails are for the support team only",)


def test_the_committed_catalogs_load():
    """The repository's own, and the one that a new workspace gets."""
    for folder in ("registry", "toolkit/app/starter_files/registry"):
        assert DataCatalog.load(ROOT / folder / "data.yaml").sources == {}
