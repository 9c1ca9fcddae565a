"""``registry/waivers.yaml``: findings that somebody answers for, until a day.

::

    waivers:
      - rule: http-client
        notebook: notebooks/rates.ipynb
        cell: 3fa9c1d2
        owner: ana
        reason: the rate service moves behind the gateway in March
        expires: "2027-03-31"
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from toolkit.errors import Fault, InvalidFile
from toolkit.promotion.check.findings import Finding, Report, Waived
from toolkit.promotion.check.rules import Rule
from toolkit.promotion.check.runner import RULES
from toolkit.promotion.check.waiving import EXPIRED, UNUSED
from toolkit.settings import YamlDocument, read_model

__all__ = ["LATER", "MAX_DAYS", "Waiver", "Waivers"]

LATER = frozenset({"simulate.denied"})
"""Rules of steps after the check whose findings may be waived, too: ``STEP.NAME``."""

MAX_DAYS = 180
"""How far ahead of today a waiver may end."""

_Text = Annotated[str, Field(min_length=1, max_length=500, pattern=r"\S")]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    rule: _Text
    notebook: _Text | None = None
    job: _Text | None = None
    cell: _Text | None = None
    owner: _Text
    reason: _Text
    expires: _Text


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    waivers: list[_Entry] = Field(max_length=1000)


@dataclass(frozen=True, slots=True)
class Waiver:
    """One entry of the file.

    Attributes:
        rule: Id of the rule that is waived.
        notebook: Path of the notebook below the workspace, or ``None``.
        job: Name of the job, or ``None``; one of the two is set.
        cell: nbformat's id of the one cell that it is about; ``None``: the whole notebook.
        owner, reason: Who answers for it, and why.
        expires: Last day on which it holds, in UTC.
        line: 1-based line in the file.
    """

    rule: str
    notebook: str | None
    job: str | None
    cell: str | None
    owner: str
    reason: str
    expires: date
    line: int = 1

    @property
    def target(self) -> str:
        """What it is about, in words."""
        about = f"notebook {self.notebook}" if self.notebook else f"job {self.job}"
        return f"{about}, cell {self.cell}" if self.cell else about

    @property
    def title(self) -> str:
        """Its name in messages: file, line, rule and target."""
        return f"registry/waivers.yaml:{self.line} ({self.rule} for {self.target})"

    def excuses(self, finding: Finding) -> bool:
        """Whether it is about a finding of its notebook or job."""
        return self.rule == finding.rule and self.cell in (None, finding.cell_id)


class Waivers:
    """The waivers of a registry, as they hold on one day; immutable."""

    def __init__(self, waivers: Sequence[Waiver] = (), *, today: date = date.min) -> None:
        # The ones for a single cell first: the whole notebook's must not look unused for nothing.
        self.waivers = tuple(sorted(waivers, key=lambda one: one.cell is None))
        self.today = today

    @classmethod
    def load(cls, path: Path, now_us: int) -> Waivers:
        """Read ``waivers.yaml``; without the file there are none.

        Args:
            path: The file.
            now_us: The time in microseconds since the Unix epoch; its day in UTC counts.

        Raises:
            NotFound: The file is there and cannot be read.
            InvalidFile: It has faults (all are named): an unknown rule, one that cannot be
                waived, no end, an end more than :data:`MAX_DAYS` ahead, the same entry twice.
        """
        today = datetime.fromtimestamp(now_us / 1e6, UTC).date()
        if not path.exists():
            return cls(today=today)
        read = read_model(path, _File, "list of waivers", missing=f"make {path} readable")
        faults: list[Fault] = []
        made = [
            waiver
            for place, entry in enumerate(read.value.waivers)
            if (waiver := _waiver(entry, place, read.document, today, faults)) is not None
        ]
        faults += _twins(made)
        if faults:
            raise InvalidFile.of(str(path), faults)
        return cls(made, today=today)

    def apply(
        self, report: Report, *, notebook: str, job: str | None = None, stage: str | None = None
    ) -> Report:
        """Return the report with the waived findings set apart.

        A waiver that has ended and is still needed is an error of its own, beside the findings
        that it no longer excuses; one that nothing needs is a warning.

        Args:
            report: What the check found.
            notebook: The notebook's path below the workspace.
            job: The job that it is to become, where that is known.
            stage: The step of the gate that made the report; ``None``: the check.
        """
        mine = [
            one for one in self.waivers if _same(one, notebook, job) and _stage(one.rule) == stage
        ]
        if not mine:
            return report
        kept: list[Finding] = []
        waived: list[Waived] = []
        used: set[int] = set()
        for finding in report.findings:
            fitting = [place for place, one in enumerate(mine) if one.excuses(finding)]
            holding = [place for place in fitting if mine[place].expires >= self.today]
            if holding:
                used.add(holding[0])
                waived.append(_waived(finding, mine[holding[0]]))
            else:
                used.update(fitting)
                kept.append(finding)
        kept += [
            found
            for place, one in enumerate(mine)
            if (found := self._about(one, needed=place in used)) is not None
        ]
        return replace(report, findings=tuple(kept), waived=tuple(waived))

    def _about(self, waiver: Waiver, *, needed: bool) -> Finding | None:
        ended = waiver.expires < self.today
        if needed and ended:
            told = f"the waiver {waiver.title} of {waiver.owner} ended on {waiver.expires}"
            return _finding(EXPIRED, told)
        if needed:
            return None
        state = "ended and is" if ended else "is"
        return _finding(UNUSED, f"the waiver {waiver.title} of {waiver.owner} {state} not needed")


def _same(waiver: Waiver, notebook: str, job: str | None) -> bool:
    return waiver.notebook == notebook if waiver.notebook else waiver.job == job


def _stage(rule: str) -> str | None:
    """The step whose rule it is; ``None``: the check, whose rules have no point in their names."""
    return rule.partition(".")[0] if rule in LATER else None


def _waived(finding: Finding, waiver: Waiver) -> Waived:
    ends = waiver.expires.isoformat()
    return Waived(finding, waiver.owner, waiver.reason, ends, waiver.target)


def _finding(rule: Rule, message: str) -> Finding:
    return Finding(rule.id, rule.severity, message, rule.fix, rule.why)


def _waiver(
    entry: _Entry, place: int, document: YamlDocument, today: date, faults: list[Fault]
) -> Waiver | None:
    before = len(faults)

    def fault(member: str, message: str, next_step: str) -> None:
        faults.append(Fault(document.place(("waivers", place, member)), message, next_step))

    rule = next((one for one in RULES if one.id == entry.rule), None)
    if entry.rule in LATER:
        if entry.cell is not None:
            fault("cell", f"{entry.rule} is not about a cell", "leave out `cell`")
    elif rule is None:
        fault("rule", f"there is no rule {ascii(entry.rule)[:80]}", "docs/checks.md lists them")
    elif not rule.waivable:
        fault("rule", f"{rule.id} cannot be waived", "mend it; docs/waivers.md says why")
    if (entry.notebook is None) == (entry.job is None):
        fault("notebook", "it names both or neither of notebook and job", "name one of the two")
    if entry.notebook is not None and re.search(r"^/|\\|(?:^|/)\.{0,2}(?:/|$)", entry.notebook):
        step = "write the path below the workspace: notebooks/rates.ipynb"
        fault("notebook", "it is not a plain path below the workspace", step)
    expires = _day(entry.expires)
    latest = today + timedelta(days=MAX_DAYS)
    if expires is None:
        fault("expires", "it is not a day", 'write expires: "2027-03-31"')
    elif expires > latest:
        message = f"it ends more than {MAX_DAYS} days ahead"
        fault("expires", message, f"choose {latest.isoformat()} or earlier")
    if expires is None or len(faults) > before:
        return None
    line = document.lines.get(("waivers", place), 1)
    return Waiver(
        entry.rule,
        entry.notebook,
        entry.job,
        entry.cell,
        entry.owner.strip(),
        entry.reason.strip(),
        expires,
        line,
    )


def _day(text: str) -> date | None:
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return found if found.isoformat() == text else None


def _twins(waivers: Sequence[Waiver]) -> list[Fault]:
    seen: dict[tuple[str, str], int] = {}
    faults = []
    for one in waivers:
        first = seen.setdefault((one.rule, one.target), one.line)
        if first != one.line:
            message = f"it waives the same as line {first}"
            faults.append(Fault(f"waivers.yaml:{one.line}", message, "keep one of the two"))
    return faults
