"""Runs every rule over a notebook."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from toolkit.document import Examination, Flaw, examine
from toolkit.errors import NotFound
from toolkit.promotion.check import (
    addresses,
    catalog,
    clients,
    labels,
    order,
    packages,
    parameters,
    secret,
    shell,
    structure,
    varying,
    waiving,
)
from toolkit.promotion.check.findings import CheckCatalog, Finding, Report, Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject
from toolkit.promotion.check.spotted import masked

__all__ = ["RULES", "check_examination", "check_notebook"]

RULES: tuple[Rule, ...] = (
    *structure.RULES,
    *parameters.RULES,
    *secret.RULES,
    *shell.RULES,
    *packages.RULES,
    *clients.RULES,
    *addresses.RULES,
    *catalog.RULES,
    *labels.RULES,
    *order.RULES,
    *varying.RULES,
    *waiving.RULES,
)
"""Every rule; within a place, findings come in this order."""

_MAX_HITS = 25
_MAX_EXCERPT = 120


def check_notebook(path: Path, catalog: CheckCatalog) -> Report:
    """Check one file; never raises, whatever the file is."""
    started = time.perf_counter()
    try:
        examination = examine(path, max_bytes=catalog.max_bytes)
    except NotFound as error:
        flaw = Flaw("not-a-file", error.message, error.next_step or "check the path")
        examination = Examination(str(path), None, (flaw,))
    return check_examination(examination, catalog, started=started)


def check_examination(
    examination: Examination, catalog: CheckCatalog, *, started: float | None = None
) -> Report:
    """Check what :func:`toolkit.document.examine` read.

    Args:
        examination: The notebook, or why there is none.
        catalog: What the registry knows.
        started: ``time.perf_counter()`` at which the clock of the report starts.
    """
    started = time.perf_counter() if started is None else started
    subject = Subject(examination, catalog)
    found = [
        (finding, place)
        for place, rule in enumerate(RULES)
        if examination.notebook is not None or not rule.needs_notebook
        for finding in _apply(rule, subject)
    ]
    found.sort(key=lambda item: (item[0].cell or 0, item[0].line or 0, item[1]))
    digest = examination.notebook.digest if examination.notebook else None
    findings = tuple(finding for finding, _ in found)
    return Report(examination.path, findings, time.perf_counter() - started, digest)


def _apply(rule: Rule, subject: Subject) -> Iterator[Finding]:
    try:
        hits = list(rule.find(subject))
    except Exception as error:  # a rule that fails must not pass for one that finds nothing
        yield Finding(
            "check-failed",
            Severity.ERROR,
            f"the rule {rule.id} failed on this notebook ({type(error).__name__})",
            "simplify the notebook, and report this fault of the toolkit",
            "what was not checked cannot be promoted",
        )
        return
    for hit in hits[:_MAX_HITS]:
        yield _finding(rule, hit)
    if len(hits) > _MAX_HITS:
        rest = len(hits) - _MAX_HITS
        yield _finding(rule, Hit(f"and {rest} more places", hits[_MAX_HITS].cell))


def _finding(rule: Rule, hit: Hit) -> Finding:
    return Finding(
        rule=rule.id,
        severity=hit.severity or rule.severity,
        message=hit.message,
        fix=hit.fix or rule.fix,
        why=rule.why,
        cell=hit.cell.number if hit.cell else hit.number,
        cell_id=hit.cell.id if hit.cell else hit.cell_id,
        line=hit.line,
        excerpt=_excerpt(rule, hit),
    )


def _excerpt(rule: Rule, hit: Hit) -> str | None:
    """Return the line, unless the rule is about something that nobody should see."""
    if not rule.quotes or hit.cell is None or not hit.line:
        return None
    lines = hit.cell.source.split("\n", hit.line)[: hit.line]
    if len(lines) < hit.line or not lines[-1].strip():
        return None
    # Cut after masking: half of a secret is not recognised as one.
    text = masked(lines[-1][:10_000].strip())
    return text if len(text) <= _MAX_EXCERPT else f"{text[: _MAX_EXCERPT - 1]}…"
