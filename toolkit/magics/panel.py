"""A live panel of this kernel's calls and spending, made of one ipywidgets HTML widget."""

from __future__ import annotations

import html
import threading
from collections import deque
from typing import Any

from toolkit.client import CallEvent
from toolkit.magics import cards
from toolkit.magics.tally import Tally, money_text

__all__ = ["Panel"]

_LAST = 10
_HEAD = ("kind", "name", "state", "production", "tokens", "cost", "time", "trace")


class Panel:
    """Counts by kind, tokens, cost, denials and the last ten calls, as they happen.

    Calls may come from any thread and in thousands: at most one update in ``every_s`` is sent to
    the browser, and the last one always is.

    Args:
        tally: What was counted before the panel opened; it is copied, not shared.
        every_s: Least seconds between two updates.
    """

    def __init__(self, tally: Tally | None = None, *, every_s: float = 0.15) -> None:
        # ipywidgets costs 60 ms to import, so a kernel pays for it when it shows a panel.
        from ipywidgets import HTML

        self._lock = threading.Lock()
        self._tally = Tally()
        if tally is not None:
            self._tally = tally.copy()
        self._events: deque[CallEvent] = deque(maxlen=_LAST)
        self._every_s = every_s
        self._timer: threading.Timer | None = None
        self.widget = HTML()
        self.refresh()

    def __call__(self, event: CallEvent) -> None:
        """Count one call; this is what ``connection.listeners`` holds."""
        with self._lock:
            self._tally.add(event)
            self._events.appendleft(event)
            if self._timer is None:
                self._timer = threading.Timer(self._every_s, self.refresh)
                self._timer.daemon = True
                self._timer.start()

    def refresh(self) -> None:
        """Send the present state to the browser."""
        with self._lock:
            self._timer = None
            markup = self._render()
        self.widget.value = markup

    def bundle(self) -> dict[str, Any]:
        """Return what to display: the widget, and a text twin that never changes."""
        data, *_ = _as_tuple(self.widget._repr_mimebundle_())  # noqa: SLF001 - IPython's protocol
        return {**data, "text/plain": "toolkit panel: calls and spending of this kernel"}

    def _render(self) -> str:
        tally = self._tally
        kinds: dict[str, int] = {}
        for (kind, _), count in tally.by_name.items():
            kinds[kind] = kinds.get(kind, 0) + count
        tiles = [("calls", str(tally.calls))]
        tiles += [(kind, str(count)) for kind, count in sorted(kinds.items())]
        tiles += [
            ("tokens", f"{tally.input_tokens:,} + {tally.output_tokens:,}"),
            ("cost", money_text(tally.cost, tally.unknown_cost)),
            ("denied", str(tally.denied)),
            ("production would object", str(tally.objected)),
            ("failed", str(tally.failed)),
        ]
        colour = cards.RED if tally.denied else cards.AMBER if tally.objected else cards.GREEN
        rows = cards.recent_rows(self._events)
        body = cards.tiles(tiles)
        body += cards.table(_HEAD, rows, raw=(7,)) if rows else "No calls yet."
        # What ten calls have in common is said once.
        remarks = dict.fromkeys((event.kind, event.name, event.notes) for event in self._events)
        for kind, name, told in remarks:
            if notes := cards.read_notes({"notes": told}):
                head = html.escape(f"{kind} {name}")
                body += f"<div><b>{head}</b>{cards.notes_markup(notes)}</div>"
        return cards.box(body, colour)


def _as_tuple(bundle: Any) -> tuple[Any, ...]:
    return bundle if isinstance(bundle, tuple) else (bundle,)
