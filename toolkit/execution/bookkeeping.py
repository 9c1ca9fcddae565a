"""papermill's record of an execution, as this room keeps it."""

from __future__ import annotations

import time
from typing import Any

from toolkit.execution.course import Course
from toolkit.execution.vendors import NotebookExecutionManager

__all__ = ["CourseManager"]

_AUTOSAVE_S = 5
_SLOW_SAVE_S = 0.01


class CourseManager(NotebookExecutionManager):  # type: ignore[misc]  # untyped vendor
    """papermill's record keeper, saving through the course and completing only what ran."""

    def __init__(self, nb: Any, course: Course) -> None:
        super().__init__(nb, progress_bar=False, autosave_cell_every=_AUTOSAVE_S)
        self.course = course
        self._slow = False
        course.node = nb

    def save(self, **_: Any) -> None:
        """Write the notebook."""
        began = time.monotonic()
        self.course.save()
        self._slow = time.monotonic() - began > _SLOW_SAVE_S
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, _cell_index: int | None = None, **_: Any) -> None:
        """Mark a cell as running; a notebook that is slow to write is written at its end only."""
        cell.metadata.papermill.update(
            start_time=self.now().isoformat(), status=self.RUNNING, exception=False
        )
        if not self._slow:
            self.save()

    def notebook_complete(self, **_: Any) -> None:
        """Close the record; unlike papermill's own, this leaves pending cells pending."""
        self.end_time = self.now()
        record = self.nb.metadata.papermill
        record["end_time"] = self.end_time.isoformat()
        record["duration"] = (self.end_time - self.start_time).total_seconds()
        record["exception"] = True if self.course.stopped else None
        self.save()
