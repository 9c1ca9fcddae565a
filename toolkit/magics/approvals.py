"""A call that waits for a person, shown in the cell that waits: the call in plain words, and buttons.

The kernel is busy with the cell, so the buttons need a way past it: JupyterLab 4.4 and later send a
widget's messages over a subshell of ipykernel 7, which has a thread of its own.  Elsewhere the
buttons do nothing until the cell ends; the card names the command that decides from a terminal.
"""

from __future__ import annotations

import contextlib
import html
import json
import threading
from collections.abc import Callable
from typing import Any, Protocol

from toolkit.client import Waiting
from toolkit.errors import ToolkitError
from toolkit.magics import cards

__all__ = ["ApprovalCards", "approval_markup", "approval_text"]

_DOUBT = "in_doubt"  # ``kind`` of a view that asks what became of a write
_COLOURS = {"approved": cards.GREEN, "changed": cards.GREEN}


class ApprovalCards:
    """Shows each request of a kernel once, and how it was decided; ``connection.watchers`` holds it.

    Args:
        extension: Publishes into the running cell.
    """

    def __init__(self, extension: Any) -> None:
        self._extension = extension
        self._cards: dict[str, _Card] = {}
        self._lock = threading.Lock()

    def __call__(self, waiting: Waiting) -> None:
        """Show a request, or what became of it."""
        approval = waiting.approval
        with self._lock:
            card = self._cards.get(approval["id"])
            if card is None and approval["waiting"]:
                card = self._cards[approval["id"]] = self._new(waiting)
        if card is not None:
            card.show(waiting)
            if not approval["waiting"]:
                self._cards.pop(approval["id"], None)

    def _new(self, waiting: Waiting) -> _Card:
        if not self._extension.in_kernel:
            return _Lines()
        card = _Buttons(waiting)
        self._extension.publish(card.bundle())
        return card


class _Card(Protocol):
    """How a request is shown."""

    def show(self, waiting: Waiting) -> None:
        """Show how it stands now."""
        ...


class _Lines:
    """Text for a terminal."""

    def show(self, waiting: Waiting) -> None:
        print(approval_text(waiting.approval))  # the person's own terminal


class _Buttons:
    """Widgets: the request, and where the kernel is a person's own the means to decide it."""

    def __init__(self, waiting: Waiting) -> None:
        # ipywidgets costs 60 ms to import, so a kernel pays for it when somebody is asked.
        import ipywidgets as widgets

        self._waiting = waiting
        doubt = waiting.approval["view"].get("kind") == _DOUBT
        self._text = widgets.HTML()
        self._said = widgets.HTML()
        self._reason = widgets.Text(
            placeholder="reason (a rejection needs one)", layout=widgets.Layout(width="98%")
        )
        self._arguments = widgets.Textarea(
            value=""
            if doubt
            else json.dumps(waiting.approval["arguments"], indent=2, ensure_ascii=False),
            placeholder="what it answered, as JSON (if it happened)" if doubt else "",
            layout=widgets.Layout(width="98%", height="7em", display=None if doubt else "none"),
        )
        self._approve = _button(widgets, "Approve", "success", lambda: self._answer("approve"))
        self._reject = _button(widgets, "Reject", "danger", lambda: self._answer("reject"))
        self._change = _button(widgets, "Change arguments…", "", self._open_arguments)
        self._stop = _button(widgets, "Stop the run", "warning", lambda: self._answer("stop"))
        shown = [self._approve, self._reject, self._stop]
        if doubt:
            shown[:1] = [
                _button(widgets, "It happened", "success", lambda: self._became(happened=True)),
                _button(widgets, "It did not: make it", "", lambda: self._became(happened=False)),
            ]
        elif waiting.approval["view"].get("changeable") and waiting.approval["arguments"]:
            shown.insert(1, self._change)
        self._row = widgets.HBox(shown)
        mine = waiting.connection.environment == "sandbox"
        form = [self._arguments, self._reason, self._row, self._said]
        self.widget = widgets.VBox([self._text, *(form if mine else [])])
        for part in (self._arguments, self._reason, *shown):
            _answer_where_it_is_heard(part)
        self._form = form[:-1]

    def bundle(self) -> dict[str, Any]:
        """Return what to display.

        Nothing but the widget: a notebook that is reproduced has its answers and asks nobody, so
        an output that stays must not be compared.
        """
        made = self.widget._repr_mimebundle_()  # noqa: SLF001 - IPython's protocol
        data = made[0] if isinstance(made, tuple) else made
        return {name: value for name, value in data.items() if name != "text/plain"}

    def show(self, waiting: Waiting) -> None:
        self._waiting = waiting
        self._text.value = approval_markup(waiting.approval)
        if not waiting.approval["waiting"]:
            self._close()

    def _open_arguments(self) -> None:
        opened = self._arguments.layout.display is None
        self._arguments.layout.display = "none" if opened else None
        self._change.description = "Change arguments…" if opened else "Leave them as they are"
        self._approve.description = "Approve" if opened else "Approve with these"

    def _became(self, *, happened: bool) -> None:
        """Say what became of a write in doubt; what it answered is needed if it happened."""

        def told() -> dict[str, Any]:
            said = {"answer": json.loads(self._arguments.value)} if happened else {}
            return {"happened": happened, **said}

        self._send("approve", told)

    def _answer(self, choice: str) -> None:
        opened = choice == "approve" and self._arguments.layout.display is None
        self._send(choice, lambda: json.loads(self._arguments.value) if opened else None)

    def _send(self, choice: str, arguments: Callable[[], dict[str, Any] | None]) -> None:
        """Send an answer; whatever is wrong with it stands under the buttons."""
        self._said.value = ""
        try:
            changed = arguments()
            reason = self._reason.value.strip() or None
            self._waiting.answer(choice, reason=reason, arguments=changed)
        except json.JSONDecodeError as error:
            doubt = self._waiting.approval["view"].get("kind") == _DOUBT
            what = "answer is" if doubt else "arguments are"
            self._say(f"the {what} not JSON: {error}")
        except ToolkitError as error:
            step = f" Next: {error.next_step}." if error.next_step else ""
            self._say(f"{error.message}.{step}")
        else:
            self._close()

    def _say(self, text: str) -> None:
        self._said.value = f'<span style="color:{cards.RED}">{html.escape(text)}</span>'

    def _close(self) -> None:
        for part in self._form:
            with contextlib.suppress(Exception):  # a page that was closed has no widgets
                part.layout.display = "none"


def _answer_where_it_is_heard(widget: Any) -> None:
    """Let a widget's messages be handled by the subshell that they are sent to.

    ipykernel 7.4 takes them to the loop that showed the widget instead (``Comm.publish_msg``), and
    that one is busy with the cell.  Other versions have no such note, and nothing to take away.
    """
    with contextlib.suppress(AttributeError):
        del widget.comm._reply_subshell_id  # noqa: SLF001 - there is no public way


def _button(widgets: Any, text: str, style: str, act: Any) -> Any:
    made = widgets.Button(description=text, button_style=style, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: act())
    return made


def approval_markup(approval: dict[str, Any]) -> str:
    """Return a request as HTML; everything in it is escaped."""
    view = approval["view"]
    body = f'<div style="font-size:14px"><b>{html.escape(str(view["title"]))}</b></div>'
    rows = [(part["name"], part["value"], part["origin"]) for part in view["arguments"]]
    if approval.get("changed"):
        new = approval["changed"]
        rows = [(n, f"{v} → {json.dumps(new[n])}" if n in new and json.dumps(new[n], ensure_ascii=False) != v else v, o) for n, v, o in rows]  # fmt: skip
    if rows:
        body += cards.table(("argument", "value", "where it came from"), rows)
    body += "".join(f"<div>{html.escape(reason)}</div>" for reason in view["reasons"])
    return cards.box(body + _standing(approval), _COLOURS.get(approval["state"], _colour(approval)))


def approval_text(approval: dict[str, Any]) -> str:
    """Return a request as lines for a terminal; the view holds no control characters."""
    view = approval["view"]
    lines = [str(view["title"])]
    for part in view["arguments"]:
        origin = f"   [{part['origin']}]" if part["origin"] else ""
        lines.append(f"  {part['name']} = {part['value']}{origin}")
    lines += [f"  why: {reason}" for reason in view["reasons"]]
    return "\n".join([*lines, f"  {_sentence(approval)}"])


def _colour(approval: dict[str, Any]) -> str:
    return cards.AMBER if approval["waiting"] else cards.RED


def _standing(approval: dict[str, Any]) -> str:
    return cards.volatile(html.escape(_sentence(approval)))


def _sentence(approval: dict[str, Any]) -> str:
    if approval["waiting"]:
        until = str(approval["expires_at"])[:16].replace("T", " ")
        return (
            f"waits for a person with the role {approval['role']} until {until} UTC; "
            f"in a terminal: toolkit decide {approval['id']}"
        )
    by = f" by {approval['decided_by']}" if approval["decided_by"] else ""
    why = f": {approval['reason']}" if approval["reason"] else ""
    text = f"{approval['state']}{by}{why}"
    return "".join(c for c in text if c.isprintable())
