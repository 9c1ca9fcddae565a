"""papermill's record of an execution, as this room keeps it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from toolkit.execution.course import Course
from toolkit.execution.vendors import NotebookExecutionManager

__all__ = ["CourseManager"]

_SLOW_SAVE_S = 0.01
# What a reader sees of a running cell is at most this old; writing takes a fiftieth of the time.
_LATE_S = 1.0
_SHARE = 50


class CourseManager(NotebookExecutionManager):  # type: ignore[misc]  # untyped vendor
    """papermill's record keeper, saving through the course and completing only what ran."""

    def __init__(self, nb: Any, course: Course) -> None:
        super().__init__(nb, progress_bar=False, autosave_cell_every=0)
        self.course = course
        self._took_s = 0.0
        self._changed = False
        course.node = nb

    def save(self, **_: Any) -> None:
        """Write the notebook."""
        began = time.monotonic()
        self.course.save()
        self._took_s = time.monotonic() - began
        self._changed = False
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, _cell_index: int | None = None, **_: Any) -> None:
        """Mark a cell as running; a notebook that is slow to write is written a little later."""
        cell.metadata.papermill.update(
            start_time=self.now().isoformat(), status=self.RUNNING, exception=False
        )
        if self._took_s <= _SLOW_SAVE_S:
            self.save()
        else:
            self._changed = True

    def autosave_cell(self) -> None:
        """Note that the kernel said something; :meth:`keep_saved` writes it."""
        self._changed = True

    async def keep_saved(self) -> None:
        """Write what running cells have printed so far, until cancelled."""
        while True:
            await asyncio.sleep(max(_LATE_S, _SHARE * self._took_s))
            if self._changed:
                self.save()

    def notebook_complete(self, **_: Any) -> None:
        """Close the record; unlike papermill's own, this leaves pending cells pending."""
        self.end_time = self.now()
        record = self.nb.metadata.papermill
        record["end_time"] = self.end_time.isoformat()
        record["duration"] = (self.end_time - self.start_time).total_seconds()
        record["exception"] = True if self.course.stopped else None
        self.save()
