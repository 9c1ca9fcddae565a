"""What a notebook shows: replies, cell footers, tables and errors as small HTML with a text twin.

Everything that came from outside is escaped, and only http(s) addresses become links.

Two kinds of facts are kept apart, because nbval compares stored outputs with new ones (both
``text/plain`` and ``text/html``): *stable* ones, which a replay of the same calls repeats (text,
model, tokens, cost, decision), and *volatile* ones (seconds, ids, links).  ``text/plain`` holds
stable facts only; in ``text/html`` the volatile ones stand in sections with the attribute
``data-toolkit-volatile``, which the pattern of :data:`NBVAL_SANITIZE` removes (nbval's documented
``--nbval-sanitize-with FILE``; the promotion's file of patterns has the same one).
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from toolkit.client import CallEvent, ModelReply
from toolkit.errors import ToolkitError
from toolkit.magics.tally import Tally, money_text
from toolkit.values import CallState, Money, Verdict

__all__ = [
    "AMBER",
    "GREEN",
    "GREY",
    "NBVAL_SANITIZE",
    "RED",
    "box",
    "cost_text",
    "error_text",
    "footer",
    "link",
    "notes_markup",
    "notes_text",
    "read_notes",
    "recent_rows",
    "reply_bundle",
    "table",
    "text_table",
    "tiles",
    "tokens_text",
    "volatile",
]

NBVAL_SANITIZE = "regex: <section data-toolkit-volatile[^>]*>.*?</section>\nreplace: VOLATILE\n"
"""Contents of a file for ``pytest --nbval --nbval-sanitize-with FILE``."""

Bundle = dict[str, str]
Note = tuple[str, str]

GREEN, AMBER, RED, GREY = "#2e7d32", "#b26a00", "#c62828", "#607d8b"
_VERDICTS = {
    **dict.fromkeys(("deny", "denied", "error", "failed"), RED),
    "ask": AMBER,
    "passed": GREEN,
}
_NOTES = {**dict.fromkeys(("policy", "production", "data", "answer"), AMBER), "error": RED}
_SAID_BY_THE_PILL = ("policy", "production")
_MUTED = "color:var(--jp-ui-font-color2,#616161)"
_FONT = "font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:12px;line-height:1.5"
_BORDER = "1px solid var(--jp-border-color2,#e0e0e0)"
_DOT = f'<span style="{_MUTED}"> · </span>'


def volatile(markup: str) -> str:
    """Mark HTML that differs from run to run; it may hold no section of its own and no line break."""
    return (
        f'<section data-toolkit-volatile style="display:inline;{_MUTED}">'
        f"{markup.replace(chr(10), '<br>')}</section>"
    )


def link(url: str | None, text: str) -> str:
    """Return a link that opens in a new tab; just the text where the address is not http(s)."""
    if not url or not url.startswith(("http://", "https://")):
        return html.escape(text)
    address = html.escape(url, quote=True)
    style = "color:var(--jp-content-link-color,#1565c0);text-decoration:none"
    return (
        f'<a href="{address}" target="_blank" rel="noopener" style="{style}">'
        f"{html.escape(text)} ↗</a>"
    )


def box(body: str, colour: str = GREY) -> str:
    """Return a bordered box whose left edge carries a colour."""
    return (
        f'<div style="{_FONT};border:{_BORDER};border-left:3px solid {colour};border-radius:4px;'
        f'padding:7px 12px;margin:3px 0;max-width:60em;color:var(--jp-ui-font-color1,#212121)">'
        f"{body}</div>"
    )


def _pill(text: str, colour: str) -> str:
    return (
        f'<span style="border:1px solid {colour};color:{colour};border-radius:9px;padding:0 7px;'
        f'font-size:11px">{html.escape(text)}</span>'
    )


def _verdict(verdict: str, production: str | None, reasons: Sequence[str]) -> tuple[str, str, str]:
    """Return (pill, colour, sentence for the text twin); the sentence is empty where all is well."""
    why = f": {'; '.join(reasons)}" if reasons else ""
    if verdict == Verdict.DENY:
        text = f"the sandbox warns{why}"
        return _pill(text, RED), RED, text
    if production == Verdict.DENY:
        text = f"production would deny{why}"
        return _pill(text, AMBER), AMBER, text
    if production == Verdict.ASK:
        text = f"production would ask a person{why}"
        return _pill(text, AMBER), AMBER, text
    return _pill("allowed", GREEN), GREEN, ""


def reply_bundle(reply: ModelReply, notes: Iterable[Note] = ()) -> Bundle:
    """Return what a model's reply looks like, as ``text/html`` and ``text/plain``.

    Args:
        reply: What the model answered.
        notes: What is remarkable about the call, see :func:`read_notes`; not in the text twin.
    """
    pill, colour, objection = _verdict(reply.verdict, reply.production_verdict, reply.reasons)
    if reply.data is not None:
        body = _pre(_json(reply.data))
    else:
        body = f'<div style="white-space:pre-wrap;font-size:13px">{html.escape(reply.text)}</div>'
    body += "".join(_pre(_wanted(call)) for call in reply.tool_calls)
    body += f'<div style="margin-top:6px">{_facts(reply)}{_DOT}{pill}</div>'
    remarks = [note for note in notes if note[0] not in _SAID_BY_THE_PILL]
    if remarks:
        body += volatile(notes_markup(remarks))
    html_text = box(body, colour)
    plain = _json(reply.data) if reply.data is not None else reply.text
    plain = "\n".join([plain, *(_wanted(call) for call in reply.tool_calls)]).strip("\n")
    return {
        "text/html": html_text,
        "text/plain": f"{plain}\n[{objection}]" if objection else plain,
    }


def _facts(reply: ModelReply) -> str:
    cost = "cost unknown" if reply.cost_usd is None else str(Money.of_usd(reply.cost_usd))
    facts = [
        f"<b>{html.escape(reply.model or 'unknown model')}</b>",
        f"{reply.input_tokens:,} + {reply.output_tokens:,} tokens",
        html.escape(cost),
    ]
    if reply.rounds > 1:
        facts.append(f"{reply.rounds} rounds")
    if reply.finish_reason not in ("stop", "tool_calls"):
        facts.append(f"ended by {html.escape(reply.finish_reason)}")
    passing = [f"{reply.latency_s:.2f} s"]
    if reply.replayed:
        passing.append("from the ledger")
    if reply.trace_url:
        passing.append(link(reply.trace_url, "trace"))
    marks = volatile(f" · {' · '.join(passing)}")
    return f'<span style="{_MUTED}">{_DOT.join(facts)}{marks}</span>'


def _wanted(call: dict[str, Any]) -> str:
    wanted = call.get("function") or {}
    return f"→ {wanted.get('name')}({wanted.get('arguments') or ''})"


def _json(value: Any) -> str:
    dump = getattr(value, "model_dump", None)
    try:
        plain = dump(mode="json") if dump else value
        return json.dumps(plain, indent=2, ensure_ascii=False, default=str)
    except (TypeError, ValueError):
        return repr(value)


def _pre(text: str) -> str:
    return (
        '<pre style="margin:0;white-space:pre-wrap;font-size:12px;background:none">'
        f"{html.escape(text)}</pre>"
    )


def footer(tally: Tally) -> Bundle:
    """Return the line under a cell that made governed calls.

    Only top-level calls are stable facts: when a notebook is reproduced, a recorded agent answers
    from the journal and the calls inside it are not made.
    """
    colour = RED if tally.top_bad else AMBER if tally.top_objections else GREEN
    names = [
        f"{kind} {name}" + (f" ×{count}" if count > 1 else "")
        for (kind, name), count in sorted(tally.top.items())
    ]
    top = tally.top.total()
    plain = f"{_count(top, 'governed call')}: {', '.join(names)}"
    return {
        "text/html": box(
            f'<span style="{_MUTED}">{html.escape(plain)}</span>{volatile(_passing(tally, top))}',
            colour,
        ),
        "text/plain": "\n".join([plain, *tally.top_objections]),
    }


def _passing(tally: Tally, top: int) -> str:
    """Return the facts of a footer that differ between a run and its replay."""
    facts = [f"{tally.calls - top:,} inside"] if tally.calls > top else []
    if tally.models:
        facts.append(html.escape(", ".join(sorted(tally.models))))
        facts.append(f"{tally.input_tokens:,} + {tally.output_tokens:,} tokens")
        facts.append(html.escape(money_text(tally.cost, tally.unknown_cost)))
    facts.append(f"{tally.latency_s:.2f} s")
    if tally.trace_url:
        facts.append(link(tally.trace_url, "trace"))
    facts += [_pill(f"{tally.denied} denied", RED)] * bool(tally.denied)
    facts += [_pill(f"{tally.failed} failed", RED)] * bool(tally.failed)
    line = "".join(f" · {fact}" for fact in facts)
    # A reason may be long: a line of its own, which wraps.
    said = (f'<span style="color:{AMBER}">{html.escape(text)}</span>' for text in tally.objections)
    return "<br>".join([line, *said])


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, raw: Iterable[int] = ()) -> str:
    """Return an HTML table.

    Args:
        head: Column titles.
        rows: Cells as text, escaped here except in the columns named by ``raw``.
        raw: Indexes of columns whose cells are HTML already.
    """
    as_is = set(raw)
    cell = f"padding:2px 10px 2px 0;text-align:left;border-bottom:{_BORDER};vertical-align:top"
    titles = "".join(f'<th style="{cell};{_MUTED}">{html.escape(title)}</th>' for title in head)
    lines = "".join(
        "<tr>"
        + "".join(
            f'<td style="{cell}">{text if i in as_is else _cell(text)}</td>'
            for i, text in enumerate(row)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<table style="{_FONT};border-collapse:collapse;margin:2px 0">'
        f"<thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"
    )


def _cell(text: str) -> str:
    """Return a cell's text, with a colour where the whole of it is a verdict."""
    colour = _VERDICTS.get(text)
    escaped = html.escape(text)
    return f'<span style="color:{colour}">{escaped}</span>' if colour else escaped


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return the same table as aligned text."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def read_notes(row: dict[str, Any]) -> list[Note]:
    """Return what the gateway finds remarkable about a call: pairs of a subject and a line.

    Args:
        row: A call as the gateway tells it; gateways of older versions tell no ``notes``.
    """
    return [(_visible(str(subject)), _visible(str(text))) for subject, text in row.get("notes", ())]


def notes_markup(notes: Iterable[Note]) -> str:
    """Return notes as a small HTML table, a subject's name once for all of its lines."""
    # JupyterLab aligns the cells of tables in outputs to the right.
    head = f"padding:0 10px 0 0;vertical-align:top;text-align:left;{_MUTED}"
    lines, before = "", None
    for subject, text in notes:
        shown = "" if subject == before else html.escape(subject)
        colour = _NOTES.get(subject)
        style = f"{head};color:{colour}" if colour else head
        lines += f'<tr><td style="{style}">{shown}</td><td style="text-align:left">{html.escape(text)}</td></tr>'
        before = subject
    return f'<table style="{_FONT};border-collapse:collapse;margin:2px 0">{lines}</table>'


def notes_text(notes: Iterable[Note]) -> str:
    """Return the same notes as indented text."""
    lines, before = [], None
    for subject, text in notes:
        lines.append(f"  {'' if subject == before else subject:<10}{text}")
        before = subject
    return "\n".join(lines)


def tiles(facts: Iterable[tuple[str, str]]) -> str:
    """Return named numbers side by side."""
    return (
        '<div style="display:flex;flex-wrap:wrap;gap:4px 22px;margin-bottom:6px">'
        + "".join(
            f'<div><div style="{_MUTED};font-size:11px">{html.escape(name)}</div>'
            f'<div style="font-size:15px">{html.escape(text)}</div></div>'
            for name, text in facts
        )
        + "</div>"
    )


def recent_rows(events: Iterable[CallEvent]) -> list[tuple[str, ...]]:
    """Return table rows (kind, name, state, production, tokens, cost, seconds, trace link)."""
    return [
        (
            event.kind,
            event.name,
            event.state + (" (recorded)" if event.replayed else ""),
            event.production_verdict or "",
            tokens_text(event.input_tokens, event.output_tokens),
            cost_text(event.kind, event.state, event.cost_usd),
            "" if event.latency_s is None else f"{event.latency_s:.2f} s",
            link(event.trace_url, "trace") if event.trace_url else "",
        )
        for event in events
    ]


def tokens_text(given: int | None, answered: int | None) -> str:
    """Return ``12 + 34``, or nothing where no tokens were counted."""
    return "" if given is None else f"{given:,} + {answered or 0:,}"


def cost_text(kind: str, state: str, cost_usd: str | None) -> str:
    """Return the cost of one call; a model call without one is *unknown*, never free."""
    if cost_usd is not None:
        return str(Money.of_usd(cost_usd))
    return "unknown" if kind == "model" and state == CallState.OK else ""


def error_text(error: ToolkitError, line: str | None = None, *, colours: bool = True) -> str:
    """Return an error as a small text box: cause, place, cell line, next step.

    Args:
        error: What went wrong.
        line: The line of the person's own code that it came from, if known.
        colours: Use ANSI colours, which notebooks and terminals show.
    """
    red, bold, dim, off = (
        ("\x1b[31m", "\x1b[1m", "\x1b[2m", "\x1b[0m") if colours else ("", "", "", "")
    )
    facts = [("at", line), ("where", error.where), ("next", error.next_step)]
    rows = [f"{red}{bold}{type(error).__name__}{off}{red}: {_visible(error.message)}{off}"]
    rows += [f"{dim}{name:>6}{off}  {_visible(text)}" for name, text in facts if text]
    bar = f"{red}│{off} "
    return "\n".join(bar + row for text in rows for row in text.split("\n"))


def _visible(text: str) -> str:
    """Return the text without control characters: a message may quote what came from outside."""
    return "".join(c for c in text if c.isprintable() or c == "\n")
