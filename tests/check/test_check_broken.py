"""The twelve broken notebooks: each gets its own verdict, with cell, line and a fix."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from toolkit.promotion.check import CheckCatalog, Severity, check_notebook

FIXTURES = Path(__file__).parents[1] / "fixtures" / "broken"
EXPECTED = {
    "not_json": [("not-json", None, 30)],
    "format_3": [("old-format", None, None)],
    "twin_keys": [("twin-keys", 4, None)],
    "no_kernel": [("no-kernelspec", None, None)],
    "secret": [("secret-in-source", 4, 2)],
    "shell": [
        ("package-install", 4, 2),
        ("shell-command", 4, 3),
        ("shell-command", 4, 4),
        ("shell-command", 5, 1),
    ],
    "no_parameters": [("no-parameters", None, None)],
    "does_not_parse": [("does-not-parse", 4, 2)],
    "hidden_state": [("undefined-name", 4, 1), ("exit-call", 6, 3)],
    "unknown_names": [("unknown-tool", 4, 2), ("unknown-route", 5, 3)],
    "provider_sdk": [("sdk-address", 4, 4), ("http-client", 5, 1)],
    "r_kernel": [("wrong-kernel", None, None)],
}


def test_every_fixture_is_expected() -> None:
    """No broken notebook lies around without a verdict."""
    assert {path.stem for path in FIXTURES.glob("*.ipynb")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_broken_notebook_gets_its_own_verdict(name: str, catalog: CheckCatalog) -> None:
    """Exactly the expected rules fire, at the expected cells and lines, each with a fix."""
    report = check_notebook(FIXTURES / f"{name}.ipynb", catalog)
    assert [(f.rule, f.cell, f.line) for f in report.findings] == EXPECTED[name]
    assert not report.ok
    for finding in report.findings:
        assert finding.severity is Severity.ERROR
        assert finding.fix
        assert finding.why
        assert (finding.cell is None) == (finding.cell_id is None)


def test_fifty_megabytes(tmp_path: Path, catalog: CheckCatalog) -> None:
    """A notebook of 50 MB is refused by its size; the finding names both sizes."""
    cell = {
        "cell_type": "code",
        "id": "big",
        "metadata": {},
        "source": "",
        "execution_count": 1,
        "outputs": [{"output_type": "stream", "name": "stdout", "text": "x" * 50_000_000}],
    }
    path = tmp_path / "big.ipynb"
    document = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document), "utf-8")
    report = check_notebook(path, catalog)
    assert [f.rule for f in report.findings] == ["too-large"]
    assert "50.0 MB, more than the 20 MB" in report.findings[0].message
    assert "clear the outputs" in report.findings[0].fix


def test_secret_is_never_shown(catalog: CheckCatalog) -> None:
    """Kind and place are reported; no part of the key appears in any form of the report."""
    report = check_notebook(FIXTURES / "secret.ipynb", catalog)
    text = json.dumps(report.to_json()) + repr(report)
    assert "OpenAI-style key" in text
    assert "EXAMPLE" not in text
    assert "0123456789" not in text


def test_old_format_fix_works(tmp_path: Path, catalog: CheckCatalog) -> None:
    """The command that the finding names makes a notebook that can be read."""
    path = tmp_path / "old.ipynb"
    path.write_bytes((FIXTURES / "format_3.ipynb").read_bytes())
    fix = check_notebook(path, catalog).findings[0].fix
    assert fix == "run `jupyter nbconvert --to notebook --nbformat 4 --inplace NOTEBOOK`"
    options = ["--to", "notebook", "--nbformat", "4", "--inplace", str(path)]
    subprocess.run(
        [sys.executable, "-m", "nbconvert", *options], check=True, capture_output=True, timeout=60
    )
    rules = {f.rule for f in check_notebook(path, catalog).findings}
    assert "old-format" not in rules
    assert "invalid-structure" not in rules


@pytest.mark.parametrize("name", ["none.ipynb", ".", "no\x00such.ipynb"])
def test_missing_files_and_folders_are_reports(
    name: str, tmp_path: Path, catalog: CheckCatalog
) -> None:
    """What cannot be opened is a report with a finding, not an exception."""
    report = check_notebook(tmp_path / name, catalog)
    assert [f.rule for f in report.findings] == ["not-a-file"]
