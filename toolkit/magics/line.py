"""``%toolkit``: what this kernel did, and the way to promotion."""

from __future__ import annotations

import html
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from toolkit.client import wire, workspace_root
from toolkit.errors import NotebookRejected, UsageError
from toolkit.magics import cards
from toolkit.magics.extension import Extension
from toolkit.magics.panel import Panel
from toolkit.magics.tally import money_text
from toolkit.values import CallKind, CallState, Money

__all__ = ["LineMagics"]

_WAITING = 3
_HEAD = ("time", "kind", "name", "state", "here", "production", "model", "tokens", "cost", "took")


@dataclass
class _Spent:
    """Tokens and money of some model calls."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost: Money = field(default_factory=Money)
    unknown: int = 0

    def add(self, call: dict[str, Any]) -> None:
        usage = call.get("usage") or {}
        self.calls += 1
        self.input_tokens += usage.get("input_tokens", 0)
        self.output_tokens += usage.get("output_tokens", 0)
        if call.get("cost_usd") is not None:
            self.cost += Money.of_usd(call["cost_usd"])
        elif call["state"] == CallState.OK:
            self.unknown += 1

    def cells(self) -> tuple[str, str, str, str]:
        cost = money_text(self.cost, self.unknown)
        return str(self.calls), f"{self.input_tokens:,}", f"{self.output_tokens:,}", cost


class LineMagics:
    """The line magic of one shell.

    Args:
        extension: What the shell's toolkit knows.
    """

    kinds: ClassVar[dict[str, str]] = {"toolkit": "line"}

    def __init__(self, extension: Extension) -> None:
        self.extension = extension
        self.panel: Panel | None = None
        self._verbs: dict[str, Callable[[list[str]], None]] = {
            "status": self._status,
            "calls": self._calls,
            "cost": self._cost,
            "trace": self._trace,
            "panel": self._panel,
            "footer": self._footer,
            "open": self._open,
            "check": lambda words: self._run("check", words),
            "promote": lambda words: self._run("promote", words),
        }

    def toolkit(self, line: str) -> None:
        """``%toolkit status|calls [N]|cost|trace|panel|open|check|promote|footer on|off``."""
        words = shlex.split(line) or ["status"]
        verb = self._verbs.get(words[0])
        if verb is None:
            raise UsageError(
                f"%toolkit {words[0]} is unknown",
                next_step=f"use %toolkit {' | '.join(self._verbs)}",
            )
        verb(words[1:])

    # -- facts --------------------------------------------------------------------------------

    def _status(self, _words: list[str]) -> None:
        connection = self.extension.connected()
        status = connection.query(wire.STATUS)
        known = ("user", "team", "run_id", "kind", "environment", "job", "notebook")
        rows = [(name, str(status[name])) for name in known if status.get(name) is not None]
        totals = status["totals"]
        cost = money_text(Money.of_usd(totals["cost_usd"]), totals["unknown_cost_calls"])
        rows += [
            ("gateway", "connected"),
            ("calls", f"{totals['calls']}, {totals['denied']} denied, {totals['errors']} failed"),
            ("tokens", cards.tokens_text(totals["input_tokens"], totals["output_tokens"])),
            ("cost", cost),
            ("not yet in MLflow", f"{status['unshipped']} calls"),
        ]
        ui = status.get("ui_url")
        marked = [(html.escape(name), html.escape(text)) for name, text in rows]
        marked.append(("MLflow", cards.link(ui, ui) if ui else "not running: `toolkit ui`"))
        rows.append(("MLflow", ui or "not running"))
        head = ("toolkit", "")
        self.extension.publish_facts(
            "toolkit status", cards.table(head, marked, raw=(0, 1)), cards.text_table(head, rows)
        )

    def _calls(self, words: list[str]) -> None:
        limit = _whole_number(words, 20)
        calls = self._read_calls()[-limit:]
        rows: list[tuple[str, ...]] = [_call_row(call) for call in calls]
        links = [cards.link(c["trace_url"], "trace") if c.get("trace_url") else "" for c in calls]
        head: tuple[str, ...] = _HEAD
        if any(call.get("agent") for call in calls):
            head = (*_HEAD, "agent")
            rows = [(*row, c.get("agent") or "") for row, c in zip(rows, calls, strict=True)]
        linked = [(*row, address) for row, address in zip(rows, links, strict=True)]
        markup, text = _remarks(calls)
        self.extension.publish_facts(
            f"toolkit calls: {len(rows)}",
            cards.table((*head, "trace"), linked, raw=(len(head),)) + markup,
            cards.text_table(head, rows) + text,
        )

    def _read_calls(self) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []
        connection = self.extension.connected()
        while True:
            after = calls[-1]["seq"] if calls else 0
            page = connection.query(wire.CALLS, {"after_seq": after, "limit": 1000})["calls"]
            calls += page
            if len(page) < 1000:
                return calls

    def _cost(self, _words: list[str]) -> None:
        spent: dict[tuple[str, str], _Spent] = {}
        total = _Spent()
        for call in self._read_calls():
            if call["kind"] == CallKind.MODEL:
                names = (call["name"], call.get("model") or "none answered")
                spent.setdefault(names, _Spent()).add(call)
                total.add(call)
        rows = [(*names, *line.cells()) for names, line in sorted(spent.items())]
        rows.append(("total", "", *total.cells()))
        head = ("route", "model", "calls", "tokens in", "tokens out", "cost")
        self.extension.publish_facts(
            "toolkit cost", cards.table(head, rows), cards.text_table(head, rows)
        )

    def _trace(self, _words: list[str]) -> None:
        url = self.extension.tally.trace_url
        if url is None:
            raise UsageError(
                "no call of this kernel has a trace yet",
                next_step="make a call first; `toolkit ui` starts the pages that show traces",
            )
        self.extension.publish_facts("toolkit trace", cards.link(url, "the last call's trace"), url)

    def _open(self, _words: list[str]) -> None:
        url = self.extension.connected().query(wire.STATUS).get("ui_url")
        if not url:
            raise UsageError("the MLflow pages are not running", next_step="run `toolkit ui`")
        self.extension.publish_facts("MLflow", cards.link(url, "MLflow"), url)

    def _panel(self, _words: list[str]) -> None:
        connection = self.extension.connected()
        if self.panel is not None and self.panel in connection.listeners:
            connection.listeners.remove(self.panel)
        self.panel = Panel(self.extension.tally)
        connection.listeners.append(self.panel)
        self.extension.publish(self.panel.bundle())

    def _footer(self, words: list[str]) -> None:
        if words not in (["on"], ["off"]):
            raise UsageError("say %toolkit footer on, or %toolkit footer off")
        self.extension.footers = words == ["on"]

    # -- the way to promotion -----------------------------------------------------------------

    def _run(self, command: str, words: list[str]) -> None:
        """Run ``toolkit check`` or ``toolkit promote`` on the saved notebook, line by line."""
        root = workspace_root()
        given = [word for word in words if word.endswith(".ipynb")][:1]
        notebook = Path(given[0]).resolve() if given else self._notebook(root, command)
        if not notebook.is_file():
            raise UsageError(
                f"there is no notebook {notebook.name}",
                where=str(notebook),
                next_step=f"%toolkit {command} PATH, relative to {Path.cwd().name}/",
            )
        rest = [word for word in words if word not in given]
        code = self._stream([command, str(notebook), *rest], root)
        if code == _WAITING:
            self.extension.publish({"text/plain": "waiting for an approval"})
        elif code:
            raise NotebookRejected(
                f"toolkit {command} ended with exit code {code}",
                where=notebook.name,
                next_step="read the lines above; save the notebook before you try again",
            )

    def _notebook(self, root: Path, command: str) -> Path:
        known = self.extension.connected().notebook
        if not known:
            raise UsageError(
                "this kernel does not know its notebook",
                next_step=f"name it: %toolkit {command} NAME.ipynb",
            )
        return root / known

    def _stream(self, words: Iterable[str], root: Path) -> int:
        hidden = ("JPY_PARENT_PID", wire.ENV_TOKEN)
        environment = {k: v for k, v in os.environ.items() if k not in hidden}
        with subprocess.Popen(
            [sys.executable, "-m", "toolkit", *words],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**environment, "COLUMNS": "100"},
        ) as process:
            try:
                for text in process.stdout or ():
                    print(text, end="", flush=True)
            except KeyboardInterrupt:
                process.terminate()
                raise
            return process.wait()


def _whole_number(words: list[str], default: int) -> int:
    if not words:
        return default
    if not words[0].isdecimal() or int(words[0]) == 0:
        raise UsageError(f"{words[0]!r} is not a number of calls", next_step="%toolkit calls 50")
    return int(words[0])


def _remarks(calls: list[dict[str, Any]]) -> tuple[str, str]:
    """Return what is remarkable about calls, as HTML and as text; nothing where nothing is."""
    markup, text = "", ""
    for call in calls:
        notes = cards.read_notes(call)
        if notes:
            name = f"{str(call.get('at', ''))[11:19]} {call['kind']} {call['name']}"
            head = f'<b style="font-size:13px">{html.escape(name)}</b>'
            markup += f"<div>{head}{cards.notes_markup(notes)}</div>"
            text += f"\n\n{name}\n{cards.notes_text(notes)}"
    return markup, text


def _call_row(call: dict[str, Any]) -> tuple[str, ...]:
    decision = call.get("decision") or {}
    usage = call.get("usage") or {}
    latency = call.get("latency_s")
    return (
        str(call.get("at", ""))[11:19],
        call["kind"],
        call["name"],
        call["state"],
        decision.get("verdict") or "",
        decision.get("production_verdict") or "",
        call.get("model") or "",
        cards.tokens_text(usage.get("input_tokens"), usage.get("output_tokens")),
        cards.cost_text(call["kind"], call["state"], call.get("cost_usd")),
        "" if latency is None else f"{latency:.2f} s",
    )
