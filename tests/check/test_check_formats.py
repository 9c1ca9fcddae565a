from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from toolkit.promotion.check import RULES, CheckCatalog, check_notebook, to_sarif

QUICK = settings(
    max_examples=120,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
LINES = st.sampled_from(
    [
        *("x = 1", "!ls", "%%bash", "%time f()", "import openai", "if x:", "    y = !cat", "y?"),
        *(
            "def f(a=b):",
            "    return c",
            "class A(B):",
            "for i in j:",
            "'''",
            "toolkit.result(a=1)",
        ),
        *("password = 'hunter22'", "@toolkit.tool", "lambda: q", "[a for b in c]", "exit()"),
        *("a: int = 1", "from x import *", "await z", "global g", "(", "\\", "%run a.py"),
    ]
)
SOURCES = st.lists(LINES | st.text(max_size=8), max_size=6).map("\n".join)


def test_sarif_has_what_readers_ask_for(check) -> None:
    """Rules with help, results with level, place, cell and a stable fingerprint."""
    report = check("x = 1\n!ls", "import langchain")
    log = json.loads(json.dumps(to_sarif([report])))
    assert log["version"] == "2.1.0"
    run = log["runs"][0]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == [r.id for r in RULES]
    first, second = run["results"]
    assert (first["ruleId"], first["level"]) == ("shell-command", "error")
    assert run["tool"]["driver"]["rules"][first["ruleIndex"]]["id"] == "shell-command"
    place = first["locations"][0]
    assert place["physicalLocation"]["region"] == {"startLine": 1}
    assert place["logicalLocations"][0] == {"name": "cell 3", "fullyQualifiedName": "cell 3 line 2"}
    assert first["properties"] == {"cell": 3, "cellId": "c3", "line": 2}
    assert second["level"] == "warning"
    again = to_sarif([check("x = 1\n!ls", "import langchain")])["runs"][0]["results"]
    assert [r["partialFingerprints"] for r in again] == [
        r["partialFingerprints"] for r in run["results"]
    ]


def test_sarif_of_a_broken_file_points_into_the_file(tmp_path: Path, catalog: CheckCatalog) -> None:
    """A JSON error has a line of the file, and an odd path becomes a valid URI."""
    path = tmp_path / "a b#c.ipynb"
    path.write_text('{\n"cells": [\n,', "utf-8")
    place = to_sarif([check_notebook(path, catalog)])["runs"][0]["results"][0]["locations"][0]
    assert place["physicalLocation"]["region"] == {"startLine": 3}
    assert place["physicalLocation"]["artifactLocation"]["uri"].endswith("a%20b%23c.ipynb")


def test_json_names_place_reason_fix_and_documentation(check) -> None:
    """``--json`` carries all that the screen shows."""
    body = check("!ls").to_json()
    assert (body["ok"], body["errors"], body["warnings"]) == (False, 1, 0)
    finding = body["findings"][0]
    assert (finding["rule"], finding["where"]) == ("shell-command", "cell 3 line 1")
    assert finding["doc"] == "docs/checks.md#shell-command"
    assert finding["fix"]
    assert finding["why"]


@given(st.lists(SOURCES, max_size=5))
@QUICK
def test_any_cells_end_in_a_report(check, sources: list[str]) -> None:
    """Whatever the code, every rule copes; JSON and SARIF can be written."""
    report = check(*sources)
    assert "check-failed" not in {f.rule for f in report.findings}
    json.dumps([report.to_json(), to_sarif([report])])
    for finding in report.findings:
        if finding.cell and finding.line:
            shown = ["", "", *sources][finding.cell - 1] if finding.cell <= len(sources) + 2 else ""
            assert finding.line <= shown.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1


@given(st.binary(max_size=120))
@QUICK
def test_any_bytes_end_in_a_report(tmp_path: Path, catalog: CheckCatalog, data: bytes) -> None:
    """No file raises; a file that is no notebook has at least one error."""
    path = tmp_path / "any.ipynb"
    path.write_bytes(data)
    assert not check_notebook(path, catalog).ok


@pytest.mark.parametrize("count", [300])
def test_deep_code_is_a_finding_or_nothing(count: int, check) -> None:
    """Deeply nested code ends in a report too."""
    for source in (
        "x = " + "(" * count + "1" + ")" * count,
        "x = " + "-" * 5000 + "1",
        "x = " + "+".join(["1"] * 5000),
        "x = a" + ".b" * 5000,
        "x = " + "[" * 90 + "]" * 90,
        "\n".join("    " * n + "if limit:" for n in range(90)) + "\n" + "    " * 90 + "x = 1",
        "limit" + "".join(f"\nelif {n}: ..." for n in range(500)),
        "if limit: ...\n" + "\n".join(f"elif limit == {n}: ..." for n in range(400)),
    ):
        check(source).to_json()
