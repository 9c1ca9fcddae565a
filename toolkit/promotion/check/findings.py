"""What a check is told, what it finds, and what it reports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toolkit.document import MAX_BYTES
from toolkit.values import Effect

__all__ = ["CheckCatalog", "Finding", "Report", "Severity"]


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
        routes: Model routes of ``registry/models.yaml``; ``None``: not known, not checked.
        allowed_imports: Modules that the workspace allows although the client rules name them.
        known_names: Names that the workspace's kernels define before the first cell.
        require_results: Whether a notebook must publish at least one result.
        require_parameters: Whether a notebook must declare its parameters (an empty tagged cell
            says that it has none).
        max_bytes: Largest file that is read, in bytes.
        max_cells: Most cells that a job may have.
    """

    tools: Mapping[str, Effect] | None = None
    routes: frozenset[str] | None = None
    allowed_imports: frozenset[str] = frozenset()
    known_names: frozenset[str] = frozenset()
    require_results: bool = True
    require_parameters: bool = True
    max_bytes: int = MAX_BYTES
    max_cells: int = 500


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
    """

    rule: str
    severity: Severity
    message: str
    fix: str
    why: str
    cell: int | None = None
    cell_id: str | None = None
    line: int | None = None

    @property
    def where(self) -> str:
        """The place in words."""
        place = "file" if self.cell is None else f"cell {self.cell}"
        return f"{place} line {self.line}" if self.line else place

    @property
    def doc(self) -> str:
        """Where the documentation explains the rule."""
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


@dataclass(frozen=True)
class Report:
    """All findings of one notebook, in the order of the notebook.

    Attributes:
        path: The notebook.
        findings: See :class:`Finding`.
        seconds: How long the check took.
        digest: Digest of the notebook's normal form; ``None`` when it could not be read.
    """

    path: str
    findings: tuple[Finding, ...] = ()
    seconds: float = field(default=0.0, compare=False)
    digest: str | None = None

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
        }
