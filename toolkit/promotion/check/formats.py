"""Reports as SARIF 2.1.0 (OASIS Static Analysis Results Interchange Format)."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from toolkit.promotion.check.findings import Finding, Report, Severity
from toolkit.promotion.check.rules import Rule
from toolkit.promotion.check.runner import RULES
from toolkit.values import digest_json

__all__ = ["to_sarif"]

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(reports: Sequence[Report], *, root: Path | None = None) -> dict[str, Any]:
    """Return reports as one SARIF 2.1.0 log with one run.

    SARIF counts lines of files; ours are lines of cells.  So the cell is a logical location, and
    the physical one is the file as a whole (line 1) unless the finding is about the file's text.
    Waived findings are there as suppressed results.  Fingerprints follow from rule, cell id and
    message without numbers, so they stay when cells above or lines in the cell are added.

    Args:
        reports: What was found.
        root: Files below it are named relative to it (``%SRCROOT%``).
    """
    index = {rule.id: place for place, rule in enumerate(RULES)}
    results = [made for report in reports for made in _results(report, index, root)]
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


def _results(
    report: Report, index: Mapping[str, int], root: Path | None
) -> Iterator[dict[str, Any]]:
    file = _file(report.path, root)
    seen: Counter[str] = Counter()
    for finding in report.findings:
        yield _result(file, finding, index, seen)
    for waived in report.waived:
        made = _result(file, waived.finding, index, seen)
        told = f"{waived.reason} ({waived.owner}, until {waived.expires})"
        suppression = {"kind": "external", "status": "accepted", "justification": told}
        yield {**made, "suppressions": [suppression]}


def _file(path: str, root: Path | None) -> dict[str, Any]:
    full = Path(path)
    with contextlib.suppress(ValueError, OSError):
        if root is not None and full.resolve().is_relative_to(root.resolve()):
            inside = full.resolve().relative_to(root.resolve())
            return {"uri": quote(inside.as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": quote(full.as_posix())}


def _result(
    file: dict[str, Any], finding: Finding, index: Mapping[str, int], seen: Counter[str]
) -> dict[str, Any]:
    region = {"startLine": finding.line if finding.cell is None and finding.line else 1}
    place: dict[str, Any] = {"physicalLocation": {"artifactLocation": file, "region": region}}
    if finding.cell is not None:
        name = f"cell {finding.cell}"
        place["logicalLocations"] = [{"name": name, "fullyQualifiedName": finding.where}]
    made: dict[str, Any] = {
        "ruleId": finding.rule,
        "level": "error" if finding.severity == Severity.ERROR else "warning",
        "message": {"text": f"{finding.where}: {finding.message}. To fix it: {finding.fix}."},
        "locations": [place],
        "partialFingerprints": {"finding/v2": _fingerprint(finding, seen)},
        "properties": {
            "cell": finding.cell,
            "cellId": finding.cell_id,
            "line": finding.line,
        },
    }
    if finding.rule in index:
        made["ruleIndex"] = index[finding.rule]
    return made


def _fingerprint(finding: Finding, seen: Counter[str]) -> str:
    """Return a digest that is the finding's own: the second equal one in a cell has another."""
    about = [finding.rule, finding.cell_id, re.sub(r"\d+", "#", finding.message)]
    first = digest_json(about)
    seen[first] += 1
    return digest_json([first, seen[first]]).partition(":")[2][:32]
