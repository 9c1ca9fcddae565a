"""What ``%load_ext toolkit`` puts into a shell: connection, cell hooks, displays, error boxes."""

from __future__ import annotations

import html
import linecache
import time
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any

from toolkit.client import CallEvent, Connection, ModelReply, connect
from toolkit.errors import ToolkitError
from toolkit.magics import cards
from toolkit.magics.approvals import ApprovalCards
from toolkit.magics.tally import Tally
from toolkit.values import digest_bytes

__all__ = ["Extension"]

# A gateway that fails fast is asked again at the next cell; one that hangs only by a magic, so
# that ordinary cells never wait for it.
_FAST_S = 3.0


class Extension:
    """One shell's toolkit: made by ``load_ipython_extension``, taken out by ``remove``.

    Attributes:
        shell: The IPython shell.
        tally: All calls of this kernel since the extension was loaded.
        last: The last call.
        footers: Whether a line under each cell tells its calls.
    """

    def __init__(self, shell: Any, opener: Callable[[], Connection] = connect) -> None:
        self.shell = shell
        self.tally = Tally()
        self.last: CallEvent | None = None
        self.footers = True
        self._opener = opener
        self._connection: Connection | None = None
        self._cell: str | None = None
        self._cell_tally = Tally()
        self._shown = 0
        self._runs: Counter[str] = Counter()
        self._failed_slowly = False
        self._before: tuple[Any, Any] | None = None
        self._asked = ApprovalCards(self)

    # -- life ---------------------------------------------------------------------------------

    def install(self) -> None:
        """Register hooks, displays and the error box, then try to connect."""
        shell = self.shell
        shell.events.register("pre_run_cell", self._before_cell)
        shell.events.register("post_run_cell", self._after_cell)
        shell.display_formatter.mimebundle_formatter.for_type(ModelReply, self._show_reply)
        self._before = (shell.custom_exceptions, shell.CustomTB)
        shell.set_custom_exc((ToolkitError,), show_error)
        self._cell = self._loading_cell()
        try:
            connection = self.connected()
        except ToolkitError as error:
            self.show_unconnected(error)
        else:
            self._show_connected(connection)

    def remove(self) -> None:
        """Take everything out again; the connection stays open for plain calls."""
        shell = self.shell
        shell.events.unregister("pre_run_cell", self._before_cell)
        shell.events.unregister("post_run_cell", self._after_cell)
        shell.display_formatter.mimebundle_formatter.pop(ModelReply, None)
        if self._before is not None:
            shell.custom_exceptions, shell.CustomTB = self._before
        self._release()

    def connected(self) -> Connection:
        """Return the kernel's connection, opening it where it is not open.

        Raises:
            ToolkitError: It cannot be opened now; the next call tries again.
        """
        started = time.monotonic()
        try:
            connection = self._opener()
        except ToolkitError:
            self._failed_slowly = time.monotonic() - started > _FAST_S
            raise
        if connection is not self._connection:
            self._release()
            connection.listeners.append(self._heard)
            connection.watchers.append(self._asked)
            self._connection = connection
            if self._cell is not None:
                connection.start_cell(self._cell)
        return connection

    def _release(self) -> None:
        if self._connection is not None and self._heard in self._connection.listeners:
            self._connection.listeners.remove(self._heard)
            self._connection.watchers.remove(self._asked)
        self._connection = None

    # -- hooks --------------------------------------------------------------------------------

    def _before_cell(self, info: Any) -> None:
        self._cell = self._cell_id(info)
        self._cell_tally, self._shown = Tally(), 0
        if self._connection is None and self._failed_slowly:
            return
        known = self._connection
        try:
            connection = self.connected()
        except ToolkitError:
            return  # told when the extension was loaded; a call in this cell will say it again
        if connection is known:
            connection.start_cell(self._cell)

    def _loading_cell(self) -> str | None:
        """Return JupyterLab's id of the cell that loads the extension, whose start was not heard."""
        parent = self.shell.get_parent() if hasattr(self.shell, "get_parent") else {}
        found = (parent.get("metadata") or {}).get("cellId")
        return str(found) if found else None

    def _cell_id(self, info: Any) -> str:
        """Return JupyterLab's id of the cell, or one made from its source.

        papermill, nbval and a terminal send no id.  There every execution is a new cell: two cells
        with the same source must not share their calls' occurrences, or the second one would be
        answered with the first one's records.
        """
        if found := getattr(info, "cell_id", None):
            return str(found)
        source = digest_bytes(str(info.raw_cell).encode("utf-8", "surrogatepass"))
        name = source.partition(":")[2][:16]
        self._runs[name] += 1
        return f"{name}.{self._runs[name]}"

    def _after_cell(self, _result: Any) -> None:
        tally, self._cell_tally = self._cell_tally, Tally()
        # A single model call whose reply is on the screen has told everything already.
        if self.footers and tally.top.total() > min(self._shown, 1):
            self.publish(cards.footer(tally))

    def _heard(self, event: CallEvent) -> None:
        self.last = event
        self.tally.add(event)
        self._cell_tally.add(event)

    # -- displays -----------------------------------------------------------------------------

    def publish(self, bundle: dict[str, Any]) -> None:
        """Show a mime bundle in the running cell."""
        self.shell.display_pub.publish(bundle)

    def publish_facts(self, title: str, markup: str, text: str) -> None:
        """Show volatile facts: all of the HTML is marked so, and the text twin is the title.

        A terminal, which has no HTML, gets the whole text.
        """
        plain = title if self.in_kernel else text
        self.publish({"text/html": cards.volatile(markup), "text/plain": plain})

    @property
    def in_kernel(self) -> bool:
        """Whether a notebook's kernel runs the shell, and not a terminal."""
        return getattr(self.shell, "kernel", None) is not None

    def _show_reply(self, reply: ModelReply) -> dict[str, str]:
        self._shown += 1
        return cards.reply_bundle(reply, cards.read_notes({"notes": reply.notes}))

    def _show_connected(self, connection: Connection) -> None:
        facts = [connection.environment, connection.user, connection.run_id]
        line = html.escape(" · ".join(facts))
        if connection.ui_url:
            line += " · " + cards.link(connection.ui_url, "MLflow")
        self.publish(
            {
                "text/html": cards.box(
                    f"<b>toolkit</b> is connected{cards.volatile(' · ' + line)}"
                ),
                "text/plain": "toolkit is connected",
            }
        )

    def show_unconnected(self, error: ToolkitError) -> None:
        """Say in one sentence why there is no connection, and what to do."""
        step = f" Next: {error.next_step}." if error.next_step else ""
        text = f"toolkit is loaded but not connected: {error.message}.{step}"
        text += " The next call tries again."
        markup = cards.box(html.escape(text), "#c62828")
        self.publish({"text/html": cards.volatile(markup), "text/plain": text})


def show_error(
    shell: Any,
    kind: type[BaseException],
    error: ToolkitError,
    trace: TracebackType | None,
    tb_offset: int | None = None,
) -> list[str]:
    """Show a toolkit error as a box; the cell still counts as failed, under the error's own name.

    IPython's documented ``_render_traceback_`` is what the box goes through, so that the kernel
    publishes its ``error`` message (``ename`` is the class, ``evalue`` the message) as for any
    exception; ``%tb`` shows the full traceback.
    """
    box = cards.error_text(error, _own_line(trace, shell.user_ns))
    error._render_traceback_ = lambda: box.split("\n")  # type: ignore[attr-defined]  # noqa: SLF001 - IPython's protocol
    try:
        shell.showtraceback((kind, error, trace), tb_offset=tb_offset)
    finally:
        del error._render_traceback_  # type: ignore[attr-defined]  # noqa: SLF001
    return box.split("\n")


def _own_line(trace: TracebackType | None, namespace: dict[str, Any]) -> str | None:
    """Return the innermost line of the notebook's own code that the error came through."""
    found = None
    while trace is not None:
        if trace.tb_frame.f_globals is namespace:
            name = trace.tb_frame.f_code.co_filename
            source = linecache.getline(name, trace.tb_lineno).strip()
            if source and not source.startswith("get_ipython()."):
                found = f"line {trace.tb_lineno} of the cell: {source[:120]}"
        trace = trace.tb_next
    return found
