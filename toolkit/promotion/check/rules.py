"""What a rule is, and what it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial

from toolkit.document import Cell, Examination, Flaw, Names, Notebook
from toolkit.promotion.check.findings import CheckCatalog, Severity
from toolkit.promotion.check.spotted import Spot, spots

__all__ = ["Find", "Hit", "Rule", "Subject", "flaw_rule"]


@dataclass(frozen=True, slots=True)
class Hit:
    """Where and how a rule applies.

    Attributes:
        message: One sentence without values from the notebook.
        cell: The cell, ``None`` for the whole file.
        line: 1-based line in the cell.
        fix: Replaces the rule's fix where the place knows better.
        number, cell_id: The cell of a file that could not be read, for which there is no ``cell``.
        severity: Replaces the rule's severity where policy says so.
    """

    message: str
    cell: Cell | None = None
    line: int | None = None
    fix: str | None = None
    number: int | None = None
    cell_id: str | None = None
    severity: Severity | None = None


@dataclass(frozen=True)
class Subject:
    """The notebook under check and what is known about its surroundings."""

    examination: Examination
    catalog: CheckCatalog

    @property
    def notebook(self) -> Notebook:
        """The notebook; rules that ask for it run only when there is one."""
        return self.examination.require()

    @property
    def names(self) -> Names:
        """What dotted names mean."""
        return self.notebook.names

    @property
    def code(self) -> tuple[Cell, ...]:
        """Python cells; none for a notebook in another language."""
        return self.notebook.code_cells

    @cached_property
    def spots(self) -> tuple[Spot, ...]:
        """Secrets and personal data, by kind and place."""
        return spots(self.notebook)


Find = Callable[[Subject], Iterator[Hit]]


@dataclass(frozen=True)
class Rule:
    """One thing that is checked.

    Attributes:
        id: Short stable name.
        severity: Whether it stops a promotion.
        why: Why it matters, one sentence.
        fix: What to do about it.
        find: Yields a :class:`Hit` per place.
        needs_notebook: Whether it looks inside, so it is skipped for an unreadable file.
        waivable: Whether somebody may take responsibility for it (docs/waivers.md).
        quotes: Whether the line may be shown; lines that may hold a secret are not.
        fixable: Whether ``toolkit check --fix`` can do what ``fix`` says.
    """

    id: str
    severity: Severity
    why: str
    fix: str
    find: Find
    needs_notebook: bool = True
    waivable: bool = True
    quotes: bool = True
    fixable: bool = False

    @property
    def doc(self) -> str:
        """Where the documentation explains it."""
        return f"docs/checks.md#{self.id}"


def _flaws(code: str, subject: Subject) -> Iterator[Hit]:
    examination = subject.examination
    found: list[Flaw] = list(examination.flaws)
    cells: dict[int, Cell] = {}
    if examination.notebook is not None:
        found += [*examination.notebook.remarks, *examination.notebook.declared.flaws]
        found += examination.notebook.dependencies.flaws
        cells = {cell.number: cell for cell in examination.notebook.cells}
    for flaw in found:
        if flaw.code == code:
            cell = cells.get(flaw.cell) if flaw.cell else None
            yield Hit(_placed(flaw), cell, flaw.line, flaw.fix, flaw.cell, flaw.cell_id)


def _placed(flaw: Flaw) -> str:
    """Name the member in the message; cell and line have their own fields."""
    member = flaw.where.partition(": ")[2] if flaw.cell else flaw.where
    if not member or member == "file" or flaw.line:
        return flaw.message
    return f"{member}: {flaw.message}"


def flaw_rule(
    code: str, severity: Severity, why: str, *, reads: bool = False, fixable: bool = False
) -> Rule:
    """Make the rule for a flaw that reading the notebook finds; its fix comes from there.

    What is wrong with the file itself cannot be waived: there would be nothing to promote.

    Args:
        code: The flaw's code, and the rule's id.
        severity: See :class:`Rule`.
        why: See :class:`Rule`.
        reads: Whether the flaw is found in a readable notebook, not in the file.
        fixable: See :class:`Rule`.
    """
    return Rule(
        code,
        severity,
        why,
        "do what the finding says",
        partial(_flaws, code),
        needs_notebook=reads,
        waivable=reads,
        fixable=fixable,
    )
