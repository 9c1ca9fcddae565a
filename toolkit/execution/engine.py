"""The papermill engine of this room: truthful statuses, bounded output, one way to stop.

papermill's own client catches only exceptions of cells; after a crash its manager marks the
killed cell and all cells after it as completed.  Here the loop over the cells notes each way
a cell can end, and the manager completes nothing that did not run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import ExitStack, suppress
from typing import Any

from toolkit.errors import ToolkitError
from toolkit.execution.bookkeeping import CourseManager
from toolkit.execution.course import Course
from toolkit.execution.endings import cell_error, shorten, unconfirmed
from toolkit.execution.kernel import KERNEL_NAME, Place, kernel_manager, until_ready
from toolkit.execution.vendors import (
    CellExecutionError,
    CellTimeoutError,
    DeadKernelError,
    NBClientEngine,
    PapermillNotebookClient,
    nbformat,
    papermill_engines,
    recv_monitor_message,
    run_sync,
)
from toolkit.values import Cause, RunState

__all__ = ["ENGINE_NAME", "ToolkitClient", "ToolkitEngine"]

ENGINE_NAME = "toolkit"
# Output may take this long to arrive after the kernel reported the cell's end.
_OUTPUT_WAIT_S = 30
# A kernel that dies closes its sockets this much earlier than its process is gone, at most.
_DEATH_S = 0.5
# What a kernel may take to end by itself after its last cell.
_LAST_WORDS_S = 5.0
_EVENT_DISCONNECTED = 0x200  # ZMQ_EVENT_DISCONNECTED of zmq_socket_monitor(3)
_LOG_TAIL_BYTES = 8_192

_log = logging.getLogger("toolkit.execution.kernel")
_log.addHandler(logging.NullHandler())  # what matters is in the ending, not on stderr
_log.propagate = False


class ToolkitClient(PapermillNotebookClient):  # type: ignore[misc]  # untyped vendor
    """nbclient's client with our kernel, our loop over the cells, and our output limits."""

    def __init__(self, nb_man: CourseManager, course: Course, place: Place, **kw: Any) -> None:
        super().__init__(
            nb_man,
            kernel_name=KERNEL_NAME,
            timeout_func=self._cell_timeout,
            startup_timeout=course.execution.start_timeout_s,
            iopub_timeout=_OUTPUT_WAIT_S,
            # No cell is skipped: a tag in the notebook does not decide what runs.
            skip_cells_with_tag="",
            on_cell_executed=self._on_reply,
            log=_log,
            **kw,
        )
        self.course = course
        self.place = place
        self.reply: dict[str, Any] = {}
        self._dropped = False
        self._context: Any = None

    def _cell_timeout(self, _cell: Any) -> float | None:
        return self.course.execution.cell_timeout_s

    def _on_reply(self, execute_reply: dict[str, Any], **_: Any) -> None:
        self.reply = execute_reply["content"]

    # the kernel

    def create_kernel_manager(self) -> Any:
        """Return the manager of our own kernel, never of the one that the notebook names."""
        self.km = kernel_manager(self.course.execution, self.place)
        self._context = self.km.context
        return self.km

    async def async_start_new_kernel(self, **kwargs: Any) -> None:
        """Start the kernel's process and put it under the course's control."""
        await super().async_start_new_kernel(**kwargs)
        self.course.kernel_started(self.km.provisioner.pid, self._wake)
        self.course.notes.extend(self.km.provisioner.notes)

    start_new_kernel = run_sync(async_start_new_kernel)

    async def async_start_new_kernel_client(self) -> Any:
        """Connect to the kernel, and return as soon as it answers and is heard.

        Raises:
            RuntimeError: It ended, or did not answer in time.
        """
        self.kc = self.km.client()
        try:
            self.kc.start_channels()
            await until_ready(self.kc, self.km.is_alive, self.startup_timeout)
        except Exception:
            await self._async_cleanup_kernel()
            raise
        self.kc.allow_stdin = False
        return self.kc

    start_new_kernel_client = run_sync(async_start_new_kernel_client)

    async def _async_cleanup_kernel(self) -> None:
        """Let the kernel end by itself, so that it can close its files; kill one that does not."""
        try:
            if self.course.stopped is None and await self.km.is_alive():
                await self.km.request_shutdown()
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self.km.provisioner.wait(), _LAST_WORDS_S)
        finally:
            self.course.end_kernel()
            await self.km.cleanup_resources()
            if self.kc is not None:
                self.kc.stop_channels()
                self.kc = self.km = None

    _cleanup_kernel = run_sync(_async_cleanup_kernel)

    def _wake(self) -> None:
        """End the wait for a cell's reply; called from any thread or from a signal handler."""
        waiting = self.task_poll_for_reply
        if waiting is not None and not waiting.done():
            with suppress(RuntimeError):  # the loop was closed a moment ago
                waiting.get_loop().call_soon_threadsafe(waiting.cancel)

    def execute(self, **kwargs: Any) -> Any:
        """Start the kernel, run the cells, and end the kernel.

        Args:
            kwargs: For the kernel's process: ``env``, ``cwd``, ``stderr``.
        """
        self.reset_execution_trackers()
        try:
            with ExitStack() as stack:
                try:
                    stack.enter_context(self.setup_kernel(**kwargs))
                except (RuntimeError, OSError, ToolkitError) as error:
                    self._start_failed(error)
                    return self.nb
                self.run_cells()
                if self.course.stopped is None:
                    self._ask_language()
                self.set_widgets_metadata()
        finally:
            self._end_kernel()
        return self.nb

    def _end_kernel(self) -> None:
        self.course.end_kernel()
        if self._context is not None:
            self._context.destroy(linger=0)

    def _ask_language(self) -> None:
        try:
            info = self.wait_for_reply(self.kc.kernel_info())
            self.nb.metadata["language_info"] = info["content"]["language_info"]
        except DeadKernelError:
            self._died()

    def _start_failed(self, error: Exception) -> None:
        if isinstance(error, ToolkitError):
            self.course.stop(RunState.FAILED, Cause.KERNEL_START, shorten(error.message))
            return
        said = self.place.log.read_bytes()[-_LOG_TAIL_BYTES:] if self.place.log.exists() else b""
        lines = [line for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
        reason = shorten(lines[-1] if lines else str(error))
        python = self.course.execution.python
        message = f"the kernel of {python} did not start: {reason}"
        self.course.stop(RunState.FAILED, Cause.KERNEL_START, message)

    def _died(self) -> None:
        provisioner = self.km.provisioner
        self.course.kernel_died(self._returncode(), provisioner.oom_killed())

    def _returncode(self) -> int | None:
        process = self.km.provisioner.process if self.km and self.km.provisioner else None
        return process.poll() if process else None

    # the cells

    async def async_run_cells(self) -> None:
        """Run the cells in order until the first one that ends the run."""
        monitor = self.kc.iopub_channel.socket.get_monitor_socket(_EVENT_DISCONNECTED)
        watch = asyncio.ensure_future(self._watch_connection(monitor))
        saving = asyncio.ensure_future(self.nb_man.keep_saved())
        try:
            for position, cell in enumerate(self.nb.cells):
                if self.course.ended():
                    return
                self.course.cell_started(position, cell)
                self.nb_man.cell_start(cell, position)
                await self._run_cell(cell, position)
                self.course.cell_ended(position, cell)
                if self.course.ended():
                    self.nb_man.cell_exception(cell, position)
                self.nb_man.cell_complete(cell, position)
        finally:
            await _end_tasks({watch, saving})
            self.kc.iopub_channel.socket.disable_monitor()
            monitor.close(linger=0)

    run_cells = run_sync(async_run_cells)

    async def _run_cell(self, cell: Any, position: int) -> None:
        self.reply = {}
        self.kc.cell_id = cell.get("id")
        began, before = time.monotonic(), asyncio.all_tasks()
        try:
            await self.async_execute_cell(cell, position)
            await self._look_at_reply(cell, position)
        except CellExecutionError as error:
            trace = self.reply.get("traceback") or []
            label = self.course.label(position)
            self.course.conclude(cell_error(label, error.ename, error.evalue, trace, position))
        except CellTimeoutError:
            self._timed_out(position, time.monotonic() - began)
        except DeadKernelError:
            self._died()
        # A kernel writes its messages itself, and may write anything.
        except Exception as error:
            what = shorten(f"{type(error).__name__}: {error}")
            message = (
                f"the kernel's messages about {self.course.label(position)} make no sense: {what}"
            )
            self.course.stop(RunState.FAILED, Cause.INFRASTRUCTURE, message)
        if self.course.ended():
            await _end_tasks(asyncio.all_tasks() - before)

    def _timed_out(self, position: int, seconds: float) -> None:
        limit, label = self.course.execution.cell_timeout_s, self.course.label(position)
        if limit and seconds >= limit:
            message = f"{label} ran longer than its limit of {limit:g} s"
            self.course.stop(RunState.TIMED_OUT, Cause.CELL_TIMEOUT, message)
        else:
            message = f"the output of {label} did not arrive within {_OUTPUT_WAIT_S} s of its end"
            self.course.stop(RunState.FAILED, Cause.INFRASTRUCTURE, message)

    async def _look_at_reply(self, cell: Any, position: int) -> None:
        """Find the failures that nbclient takes for successes."""
        label, tolerant = self.course.label(position), "raises-exception" in cell.metadata.tags
        if self._dropped:
            self._too_big()
        elif self.reply.get("status") == "error":
            what = f"{self.reply.get('ename')}: {self.reply.get('evalue')}"
            await self._tolerate(cell, position, what)
        elif any(item.get("source") == "ask_exit" for item in self.reply.get("payload", [])):
            message = f"{label} called exit, and a run ends by reaching its last cell"
            self.course.stop(RunState.FAILED, Cause.EXIT_CALLED, message)
        elif self.reply and "shell" not in self.reply.get("user_expressions", {}):
            self.course.conclude(unconfirmed(label, position))
        elif (status := self._shell_status()) != "0":
            what = f"a shell command returned exit status {status}"
            if tolerant:
                await self._tolerate(cell, position, what)
            else:
                self.course.stop(RunState.FAILED, Cause.SHELL_FAILED, f"{label}: {what}")

    def _shell_status(self) -> str:
        answer = self.reply.get("user_expressions", {}).get("shell", {})
        return str(answer.get("data", {}).get("text/plain", "0"))

    async def _tolerate(self, cell: Any, position: int, what: str) -> None:
        self.course.cell_tolerated(position, cell, what)
        # Otherwise the next cell would be blamed for this cell's command.
        message = self.kc.execute("_exit_code = 0", silent=True, store_history=False)
        await self.async_wait_for_reply(message)

    async def _watch_connection(self, monitor: Any) -> None:
        """End the run when libzmq breaks the connection, as it does on a message over its limit.

        What was published until the connection is back is lost, the cell's end perhaps too.
        """
        await recv_monitor_message(monitor)
        self._dropped = True
        await asyncio.sleep(_DEATH_S)
        if self._returncode() is None:
            self._too_big()

    def _too_big(self) -> None:
        size = self.course.execution.limits.message_bytes
        message = f"a single output of more than {size} bytes was produced{self.course.here}"
        self.course.stop(RunState.FAILED, Cause.OUTPUT_LIMIT, message)

    # output

    def process_message(self, msg: dict[str, Any], cell: Any, cell_index: int) -> Any:
        """Handle one message of the kernel; past a limit only the cell's end still counts."""
        if self.course.keeper.exceeded and msg["msg_type"] != "status":
            return None
        return super().process_message(msg, cell, cell_index)

    def output(self, outs: list[Any], msg: dict[str, Any], display_id: Any, cell_index: int) -> Any:
        """Keep one output, unless a limit is passed."""
        keeper, content = self.course.keeper, msg["content"]
        if self.clear_before_next_output:
            keeper.cleared()
        hooked = bool(self.output_hook_stack[msg["parent_header"].get("msg_id")])
        plain = not (hooked or self.clear_before_next_output)
        joins = plain and msg["msg_type"] == "stream" and keeper.extends(outs, content)
        if not keeper.admit(content, joins=joins):
            self._over_limit()
            return None
        if joins:
            keeper.join(outs, content)
            return None
        keeper.flush()
        return super().output(outs, msg, display_id, cell_index)

    def clear_output(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        """Clear the cell's output as the notebook asks."""
        super().clear_output(outs, msg, cell_index)
        if not outs:
            self.course.keeper.cleared()

    def handle_comm_msg(self, outs: list[Any], msg: dict[str, Any], cell_index: int) -> None:
        """Keep a widget's state, unless a limit is passed."""
        content = msg["content"]
        for name, value in content.get("data", {}).get("state", {}).items():
            if not self.course.keeper.replace(("widget", content["comm_id"], name), value):
                return self._over_limit()
        for path, buffer in zip(
            content.get("data", {}).get("buffer_paths") or [],
            msg.get("buffers") or [],
            strict=False,
        ):
            text = "=" * (len(buffer) * 4 // 3)  # nbclient keeps buffers in base64
            key = ("buffer", content["comm_id"], str(path))
            if not self.course.keeper.replace(key, text):
                return self._over_limit()
        return super().handle_comm_msg(outs, msg, cell_index)  # type: ignore[no-any-return]

    def _update_display_id(self, display_id: str, msg: dict[str, Any]) -> None:
        # Overrides a private method of nbclient 0.11: the only place where an update of an
        # earlier output passes.  tests/execution checks that it is still called.
        copies = sum(map(len, self._display_id_map.get(display_id, {}).values()))
        key = ("display", display_id)
        if not self.course.keeper.replace(key, msg["content"].get("data", {}), copies):
            return self._over_limit()
        return super()._update_display_id(display_id, msg)  # type: ignore[no-any-return]

    def _over_limit(self) -> None:
        limits = self.course.execution.limits
        message = (
            f"the output exceeded {limits.cell_bytes} bytes in a cell "
            f"or {limits.run_bytes} bytes in the run{self.course.here}"
        )
        self.course.stop(RunState.FAILED, Cause.OUTPUT_LIMIT, message)


async def _end_tasks(tasks: set[asyncio.Task[Any]]) -> None:
    """End what nbclient leaves behind when the wait for a reply ends early."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class ToolkitEngine(NBClientEngine):  # type: ignore[misc]  # untyped vendor
    """Runs a notebook for :func:`toolkit.execution.execute`; registered as ``toolkit``."""

    @classmethod
    def execute_notebook(cls, nb: Any, kernel_name: str, *, course: Course, **kwargs: Any) -> Any:
        """Run ``nb`` with a manager that is bound to ``course``."""
        manager = CourseManager(nb, course)
        nb.metadata.papermill["input_path"] = course.execution.run.notebook
        manager.notebook_start()
        try:
            cls.execute_managed_notebook(manager, kernel_name, course=course, **kwargs)
        finally:
            manager.notebook_complete()
        # papermill would insert its error banners into the notebook that it gets back, and
        # raise for exceptions that a tag allows.  The course holds the notebook and the verdict.
        return nbformat.v4.new_notebook()

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: CourseManager,
        kernel_name: str,  # noqa: ARG003 - ours is forced
        *,
        course: Course,
        place: Place,
        kernel_kwargs: dict[str, Any],
        **_: Any,
    ) -> None:
        """Run the cells in a fresh kernel."""
        ToolkitClient(nb_man, course, place).execute(**kernel_kwargs)


papermill_engines.register(ENGINE_NAME, ToolkitEngine)
