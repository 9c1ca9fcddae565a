"""The static check as a stage: what it compares with, and the waivers that hold on its day."""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.gateway import Governance
from toolkit.policy import BudgetPolicy, BudgetRule, PolicyBundle, Scope, ToolCatalog
from toolkit.promotion.check import CheckCatalog, Report, Severity, Waivers, check_notebook
from toolkit.promotion.stages import Stage
from toolkit.sources import DataCatalog
from toolkit.tools import RemoteFile

__all__ = ["catalog_of", "check_stage", "checked", "is_budgeted"]

WAIVERS = "waivers.yaml"


def catalog_of(
    registry: Path, governance: Governance, bundle: PolicyBundle, *, job: str | None = None
) -> CheckCatalog:
    """Return what the static check compares a notebook with.

    Args:
        registry: The registry folder.
        governance: Where routes are known.
        bundle: The production policy.
        job: The job that the notebook is to become; ``None``: not known.

    Raises:
        InvalidFile, NotFound: A registry file has faults or is missing.
    """
    tools = ToolCatalog.load(registry / "tools.yaml")
    remote = RemoteFile.load(registry / "tools.yaml")
    path = registry / "data.yaml"
    sources = dict(DataCatalog.load(path).sources) if path.exists() else {}
    addresses = [service.base_url for service in remote.http.values()]
    addresses += [getattr(server, "url", "") for server in remote.servers.values()]
    addresses += [source.url for source in sources.values()]
    return CheckCatalog(
        tools={name: entry.effect for name, entry in tools.items()},
        timed=frozenset(name for name, entry in tools.items() if entry.timeout_s is not None),
        routes=frozenset({*governance.catalog().routes, "default"}),
        require_results=bundle.require_results,
        sources=frozenset(sources),
        hosts=frozenset(host for each in addresses if (host := _host(each))),
        budgeted=is_budgeted(bundle, job),
        # Where policy cuts personal data out of calls, it has no business in a version either.
        personal_data=Severity.ERROR if bundle.privacy.pii == "redact" else Severity.WARNING,
    )


def is_budgeted(bundle: PolicyBundle, job: str | None) -> bool:
    """Whether policy limits the money, the tokens or the calls of a job's run."""
    if _limits(bundle.budget):
        return True
    values = {Scope.RUN: "run", Scope.JOB: job, Scope.ENVIRONMENT: bundle.environment.value}
    return any(
        rule.scope in values and _limits(rule) and _covers(rule, values[rule.scope])
        for rule in bundle.budgets
    )


def _covers(rule: BudgetRule, value: str | None) -> bool:
    # A rule without a name holds for each job, also for one whose name is not known yet.
    return rule.name is None or rule.covers(value)


def _limits(limits: BudgetPolicy | BudgetRule) -> bool:
    return any(each is not None for each in (limits.usd, limits.tokens, limits.calls))


def _host(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def checked(
    path: Path, catalog: CheckCatalog, registry: Path, *, name: str, job: str | None, now_us: int
) -> Report:
    """Check a notebook and set apart what is waived today.

    Args:
        path: The notebook.
        catalog: See :func:`catalog_of`.
        registry: The registry folder, where ``waivers.yaml`` may be.
        name: The notebook's path below the workspace.
        job: The job that it is to become, where that is known.
        now_us: The time, in microseconds since the Unix epoch.

    Raises:
        InvalidFile, NotFound: ``waivers.yaml`` has faults or cannot be read.
    """
    waivers = Waivers.load(registry / WAIVERS, now_us)
    return waivers.apply(check_notebook(path, catalog), notebook=name, job=job)


def check_stage(report: Report, started: float) -> Stage:
    """Return a report as the first stage of the gate.

    Args:
        report: See :func:`checked`.
        started: ``time.monotonic()`` when the stage began.
    """
    counts = {"errors": len(report.errors), "warnings": len(report.warnings)}
    summary = f"{counts['errors']} errors, {counts['warnings']} warnings"
    if report.waived:
        counts["waived"] = len(report.waived)
        summary += f", {counts['waived']} waived"
    took = time.monotonic() - started
    return Stage("check", report.ok, summary, report.findings, took, dict(counts))
