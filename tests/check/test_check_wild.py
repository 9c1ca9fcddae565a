"""Notebooks as they lie around: each gets a verdict with cell and reason, and no rule fails."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.wild import KINDS, notebooks
from toolkit.promotion.check import CheckCatalog, check_notebook, to_sarif

QUICK = settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
# What the file must say first, by kind: about the file as a whole, or about a cell.
EXPECTED = {
    "R": {"wrong-kernel"},
    "format 3": {"old-format"},
    "no ids": {"missing-cell-id"},
    "papermill output": {"injected-parameters", "secret-in-metadata"},
    "other tools' metadata": {"no-kernelspec"},
    "4 MB outputs": {"large-output"},
}


def judge(path: Path, data: bytes, catalog: CheckCatalog) -> set[str]:
    """Check, and look at what every report has to have; return the rules that spoke."""
    path.write_bytes(data)
    report = check_notebook(path, catalog)
    rules = {f.rule for f in report.findings}
    assert "check-failed" not in rules
    json.dumps([report.to_json(), to_sarif([report])])
    for found in report.findings:
        assert found.message
        assert found.fix
        assert (found.cell is None) or found.cell >= 1
    return rules


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_gets_its_verdict(kind: str, tmp_path: Path, catalog: CheckCatalog) -> None:
    """With the rule that the kind is about."""
    rules = judge(tmp_path / "n.ipynb", KINDS[kind](Random(1)), catalog)
    assert rules >= EXPECTED.get(kind, set())


def test_wild_cells_are_named(tmp_path: Path, catalog: CheckCatalog) -> None:
    """Shell, installs, and code that does not parse are found in their cells."""
    rules = set()
    for seed in range(6):
        rules |= judge(tmp_path / "n.ipynb", KINDS["wild"](Random(seed)), catalog)
    wanted = {"does-not-parse", "shell-command", "package-install", "external-code", "exit-call"}
    assert rules >= wanted | {"http-client", "secret-in-source"}


def test_the_generator_repeats_itself() -> None:
    """A figure of the benchmark can be measured again; each kind is in it."""
    first = list(notebooks(5, seed=5))
    assert first == list(notebooks(5, seed=5))
    assert [kind for kind, _ in first] == list(KINDS)[:5]


@given(st.data())
@QUICK
def test_any_json_in_any_place_ends_in_a_report(
    tmp_path: Path, catalog: CheckCatalog, data: Any
) -> None:
    """Values that no schema expects, put into a real notebook."""
    document = json.loads(KINDS["other tools' metadata"](Random(2)))
    for _ in range(data.draw(st.integers(1, 4))):
        node: Any = document
        while isinstance(node, dict | list) and node:
            keys = list(node) if isinstance(node, dict) else list(range(min(len(node), 6)))
            key = data.draw(st.sampled_from(keys))
            if not isinstance(node[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
                node[key] = data.draw(JSON)
                break
            node = node[key]
    judge(tmp_path / "n.ipynb", json.dumps(document).encode(), catalog)
