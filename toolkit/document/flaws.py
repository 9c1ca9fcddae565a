"""What is wrong with a notebook, as data: the file, a cell, a parameter."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import Fault

__all__ = ["Flaw"]


@dataclass(frozen=True, slots=True)
class Flaw:
    """One thing that is wrong.

    Attributes:
        code: A stable short name (``twin-keys``, ``untyped-parameter`` …).
        message: What is wrong, one sentence; never a value from the notebook.
        fix: What to do about it.
        where: The place inside the file, in words.
        cell: 1-based position in the notebook, markdown cells counted, as JupyterLab shows them.
        cell_id: nbformat's id of that cell.
        line: 1-based line in the cell's source; of the file where ``cell`` is ``None``.
    """

    code: str
    message: str
    fix: str
    where: str = "file"
    cell: int | None = None
    cell_id: str | None = None
    line: int | None = None

    def fault(self) -> Fault:
        """Return the form that :class:`toolkit.errors.InvalidFile` lists."""
        return Fault(self.where, self.message, self.fix)
