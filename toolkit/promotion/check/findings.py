"""What a check is told, what it finds, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.document import MAX_BYTES
from toolkit.values import Effect

__all__ = ["CheckCatalog", "Finding", "Report", "Severity", "Waived"]


class Severity(StrEnum):
    """Whether a finding stops a promotion."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class CheckCatalog:
    """What the workspace's registry knows; the checks themselves read no files but the notebook.

    Attributes:
        tools: Effect by name of every tool of ``registry/tools.yaml``; ``None``: not known, and
            tools are not checked.
        timed: Those of them that have a ``timeout_s``.
        routes: Model routes of ``registry/models.yaml``; ``None``: not known, not checked.
        allowed_imports: Modules that the workspace allows although the client rules name them.
        known_names: Names that the workspace's kernels define before the first cell.
        require_results: Whether a notebook must publish at least one result.
        require_parameters: Whether a notebook must declare its parameters (an empty tagged cell
            says that it has none).
        sources: Names of ``registry/data.yaml``; ``None``: not known, not checked.
        hosts: Hosts that a tool server, service or data source names; ``None``: not checked.
        budgeted: Whether production limits what the job may use; ``None``: not known.
        personal_data: How bad personal data in the notebook is.
        keep_outputs: Whether outputs in the file are expected (a promotion compares with them).
        max_bytes: Largest file that is read, in bytes.
        max_cells: Most cells that a job may have.
        max_output_bytes: Most that the outputs of one cell may have without a warning.
    """

    tools: Mapping[str, Effect] | None = None
    timed: frozenset[str] = frozenset()
    routes: frozenset[str] | None = None
    allowed_imports: frozenset[str] = frozenset()
    known_names: frozenset[str] = frozenset()
    require_results: bool = True
    require_parameters: bool = True
    sources: frozenset[str] | None = None
    hosts: frozenset[str] | None = None
    budgeted: bool | None = None
    personal_data: Severity = Severity.WARNING
    keep_outputs: bool = True
    max_bytes: int = MAX_BYTES
    max_cells: int = 500
    max_output_bytes: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that a rule found.

    Attributes:
        rule: Id of the rule.
        severity: ``error`` stops a promotion.
        message: What was found, one sentence; never a secret, never a value from the notebook.
        fix: What to do about it.
        why: Why it matters.
        cell: 1-based cell as JupyterLab shows them from the top; ``None`` for the whole file.
        cell_id: nbformat's id of the cell.
        line: 1-based line in the cell; of the file where ``cell`` is ``None``.
        excerpt: That line for the screen, where it may be shown; it is in no document.
    """

    rule: str
    severity: Severity
    message: str
    fix: str
    why: str
    cell: int | None = None
    cell_id: str | None = None
    line: int | None = None
    excerpt: str | None = field(default=None, compare=False, repr=False)

    @property
    def where(self) -> str:
        """The place in words."""
        place = "file" if self.cell is None else f"cell {self.cell}"
        return f"{place} line {self.line}" if self.line else place

    @property
    def doc(self) -> str:
        """Where the documentation explains the rule."""
        if "." in self.rule:  # of a step that ran the notebook
            return "docs/promotion.md#findings"
        return f"docs/checks.md#{self.rule}"

    def to_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "where": self.where,
            "cell": self.cell,
            "cell_id": self.cell_id,
            "line": self.line,
            "message": self.message,
            "fix": self.fix,
            "why": self.why,
            "doc": self.doc,
        }


@dataclass(frozen=True, slots=True)
class Waived:
    """A finding for which somebody took responsibility.

    Attributes:
        finding: What was found.
        owner, reason: Who did, and why.
        expires: Last day on which it holds, ISO 8601, in UTC.
        target: ``notebook PATH`` or ``job NAME``.
    """

    finding: Finding
    owner: str
    reason: str
    expires: str
    target: str

    def to_json(self) -> dict[str, Any]:
        """Return what the sealed evidence and the audit log keep."""
        return {
            "rule": self.finding.rule,
            "where": self.finding.where,
            "cell_id": self.finding.cell_id,
            "message": self.finding.message,
            "target": self.target,
            "owner": self.owner,
            "reason": self.reason,
            "expires": self.expires,
        }


@dataclass(frozen=True)
class Report:
    """All findings of one notebook, in the order of the notebook.

    Attributes:
        path: The notebook.
        findings: See :class:`Finding`.
        seconds: How long the check took.
        digest: Digest of the notebook's normal form; ``None`` when it could not be read.
        waived: Findings that do not count, each with who answers for it.
    """

    path: str
    findings: tuple[Finding, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    digest: str | None = None
    waived: tuple[Waived, ...] = ()

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that stop a promotion."""
        return tuple(f for f in self.findings if f.severity == Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do not."""
        return tuple(f for f in self.findings if f.severity == Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether nothing stops a promotion."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "path": self.path,
            "ok": self.ok,
            "errors": len(self.errors),
            "warnings": len(self.warnings),
            "digest": self.digest,
            "seconds": round(self.seconds, 4),
            "findings": [finding.to_json() for finding in self.findings],
            "waived": [one.to_json() for one in self.waived],
        }
