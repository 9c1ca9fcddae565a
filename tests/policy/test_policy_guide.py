"""The examples of docs/policy.md are files that load together, and its cases pass."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from toolkit.policy import People, PolicyBundle, read_cases, run_cases

PAGE = (Path(__file__).parents[2] / "docs" / "policy.md").read_text("utf-8")


def block(info: str, number: int = -1) -> str:
    """Return a fenced block of the page by its info line."""
    found = re.findall(rf"^```{re.escape(info)}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return found[number]


@pytest.fixture
def registry(tmp_path: Path, limits_text: str) -> Path:
    folder = tmp_path / "policies" / "production"
    folder.mkdir(parents=True)
    (tmp_path / "tools.yaml").write_text(block("yaml tools.yaml"))
    (tmp_path / "people.yaml").write_text(block("yaml people.yaml"))
    (folder / "policy.yaml").write_text(limits_text)
    (folder / "rules.cedar").write_text(block("cedar flow/rules.cedar"))
    (folder / "tests.yaml").write_text(block("yaml tests.yaml"))
    return tmp_path


def test_the_guides_cases_pass_under_the_guides_rules(registry: Path):
    """Every verdict that the page shows is the bundle's own."""
    folder = registry / "policies" / "production"
    people = People.load(registry / "people.yaml")
    results = run_cases(PolicyBundle.load(folder), read_cases(folder / "tests.yaml"), people)
    assert [(r.case.name, r.faults) for r in results if r.faults] == []
    assert len(results) >= 7


def test_the_page_names_every_member_of_the_context():
    """What the schema has, the guide has."""
    from toolkit.policy.schema import MEMBERS

    table = PAGE[PAGE.index("| principal |") : PAGE.index("## Describe the tools")]
    assert [name for name in MEMBERS if f"`{name}`" not in table] == []
