"""Reports as SARIF 2.1.0 (OASIS Static Analysis Results Interchange Format)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from toolkit.promotion.check.findings import Finding, Report, Severity
from toolkit.promotion.check.rules import Rule
from toolkit.promotion.check.runner import RULES
from toolkit.values import digest_json

__all__ = ["to_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(reports: Sequence[Report]) -> dict[str, Any]:
    """Return reports as one SARIF 2.1.0 log with one run.

    SARIF counts lines of files; ours are lines of cells.  So the cell is a logical location, and
    the physical one is the file as a whole (line 1) unless the finding is about the file's text.
    """
    index = {rule.id: place for place, rule in enumerate(RULES)}
    results = [_result(r.path, finding, index) for r in reports for finding in r.findings]
    driver = {"name": "toolkit check", "rules": [_rule(rule) for rule in RULES]}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.id.replace("-", " ")},
        "fullDescription": {"text": f"{rule.why[0].upper()}{rule.why[1:]}."},
        "help": {"text": f"{rule.fix[0].upper()}{rule.fix[1:]}. See {rule.doc}."},
        "defaultConfiguration": {"level": str(rule.severity)},
    }


def _result(path: str, finding: Finding, index: dict[str, int]) -> dict[str, Any]:
    region = {"startLine": finding.line if finding.cell is None and finding.line else 1}
    uri = quote(PurePath(path).as_posix())
    place: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}
    }
    if finding.cell is not None:
        name = f"cell {finding.cell}"
        place["logicalLocations"] = [{"name": name, "fullyQualifiedName": finding.where}]
    identity = [finding.rule, finding.cell_id, finding.message]
    made: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": "error" if finding.severity == Severity.ERROR else "warning",
        "message": {"text": f"{finding.where}: {finding.message}. To fix it: {finding.fix}."},
        "locations": [place],
        "partialFingerprints": {"finding/v1": digest_json(identity).partition(":")[2][:32]},
        "properties": {
            "cell": finding.cell,
            "cellId": finding.cell_id,
            "line": finding.line,
        },
    }
    if finding.rule in index:
        made["ruleIndex"] = index[finding.rule]
    return made
