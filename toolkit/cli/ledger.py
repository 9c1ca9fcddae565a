"""`ledger` and `costs`: what was recorded and spent."""

from __future__ import annotations

import csv
import io
import re
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from toolkit.app.workbench import open_workbench
from toolkit.cli import show
from toolkit.errors import UsageError
from toolkit.values import CallRecord, RunState, SystemClock

__all__ = ["costs", "ledger_export", "ledger_verify", "read_since"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]

_UNIT_S = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_AGO = re.compile(r"([0-9]{1,6})([mhdw])", re.ASCII)


def ledger_verify(
    run_id: Annotated[
        str | None,
        typer.Argument(metavar="RUN", help="One run, or switches (the stops); default: all."),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(help="A copy of the heads of chains; default: the workspace's own."),
    ] = None,
    json: Json = False,
) -> int:
    """Recompute the hash chains of calls and stops, and all that is derived from them."""
    from toolkit.ledger import HeadFile

    if heads is not None and not heads.is_file():
        raise UsageError(
            f"there is no file {heads}", where="--heads", next_step="name a copy of it"
        )
    with open_workbench() as bench:
        kept, faults = HeadFile(heads or bench.workspace.ledger_heads).read()
        expected = [head for head in kept if run_id in (None, head.run_id)]
        faults += bench.ledger.verify(run_id, expected=expected)
        anchored = {head.run_id for head in expected}
        ended = [one for one in bench.ledger.ended_runs() if run_id in (None, one)]
        bare = [one for one in ended if one not in anchored]
        if json:
            told = {"runs": len(anchored), "not_anchored": bare}
            facts = [asdict(fault) for fault in faults]
            show.print_json({"ok": not faults, "faults": facts, "anchors": told})
        else:
            for fault in faults:
                place, text = show.safe(fault.run_id), show.safe(fault.message)
                show.out.print(f"[red]fault[/] {place}: {text}", soft_wrap=True)
            if not faults:
                show.out.print("[green]every chain is whole[/]")
            _tell_bare(bare)
        return 78 if faults else 0


def _tell_bare(bare: list[str]) -> None:
    if bare:
        named = ", ".join(map(show.safe, bare[:3])) + (", …" if len(bare) > 3 else "")
        count = "1 run has" if len(bare) == 1 else f"{len(bare):,} runs have"
        show.out.print(
            f"{count} ended without an anchor outside of the ledger ({named}): that such a chain was "
            "rewritten as a whole, or its end cut off, would not be seen",
            soft_wrap=True,
        )


def ledger_export(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="A run's id.")],
    output: Annotated[Path | None, typer.Option(help="A file; default: standard output.")] = None,
    json: Json = False,
) -> int:
    """Export one run's calls for auditors (facts, no payloads): CSV, or JSON with --json."""
    names = ("seq", "call_id", "kind", "name", "state", "verdict", "policies", "provider", "model",
             "input_tokens", "output_tokens", "cost_usd", "started_us", "latency_s")  # fmt: skip
    with open_workbench() as bench:
        run = bench.ledger.get_run(run_id)
        rows: list[list[Any]] = []
        after = 0
        while calls := bench.ledger.calls(run_id, after_seq=after, limit=1000):
            after = calls[-1].seq
            rows += [_csv_row(call, run.state) for call in calls]
        text = _csv_text(names, rows)
        if output is not None:
            show.write_file(output, text)
        if json:
            show.print_json([dict(zip(names, row, strict=True)) for row in rows])
        elif output is None:
            sys.stdout.write(text)
        return 0


def _csv_text(names: tuple[str, ...], rows: list[list[Any]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([[_inert(cell) for cell in row] for row in rows])
    return text.getvalue()


def _inert(cell: Any) -> Any:
    """A spreadsheet would run a cell that starts like a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@") else cell


def _csv_row(call: CallRecord, run: RunState) -> list[Any]:
    outcome, usage = call.outcome, call.outcome.usage if call.outcome else None
    cost = "unknown" if outcome is None or outcome.cost is None else str(outcome.cost.usd)
    return [
        call.seq,
        call.call_id,
        call.intent.kind.value,
        call.intent.name,
        show.call_state(call, run),
        call.decision.verdict.value,
        " ".join(call.decision.policies),
        outcome.provider if outcome else None,
        outcome.model if outcome else None,
        usage.input_tokens if usage else None,
        usage.output_tokens if usage else None,
        cost if outcome and outcome.model else None,
        call.started_us,
        call.latency_s,
    ]


def costs(
    by: Annotated[str, typer.Option(help="user, team, job, agent, model, route or day.")] = "job",
    since: Annotated[
        str | None, typer.Option(help="Only the last 12h, 7d, 4w, or since 2026-11-21 (UTC).")
    ] = None,
    json: Json = False,
) -> int:
    """Show what model calls cost, from the ledger."""
    from toolkit.ledger import COST_GROUPS

    if by not in COST_GROUPS:
        raise UsageError(
            f"costs cannot be grouped by {by!r}", next_step=f"use {', '.join(COST_GROUPS)}"
        )
    since_us = None if since is None else read_since(since)
    with open_workbench() as bench:
        rows = bench.ledger.costs(by, since_us=since_us)
        if json:
            show.print_json(
                [
                    {
                        by: row.group,
                        "calls": row.calls,
                        "input_tokens": row.input_tokens,
                        "output_tokens": row.output_tokens,
                        "cost_usd": str(row.cost.usd),
                        "unknown_cost_calls": row.unknown_cost_calls,
                    }
                    for row in rows
                ]
            )
        else:
            cells = [
                (
                    r.group,
                    r.calls,
                    f"{r.input_tokens:,}",
                    f"{r.output_tokens:,}",
                    show.money(r.cost, r.unknown_cost_calls),
                )
                for r in rows
            ]
            show.out.print(
                show.table(None, (by, ">model calls", ">tokens in", ">tokens out", ">cost"), cells)
            )
        return 0


def read_since(text: str) -> int:
    """Return microseconds since the epoch for ``7d`` (before now) or ``2026-11-21`` (UTC)."""
    found = _AGO.fullmatch(text)
    if found:
        ago_us = int(found[1]) * _UNIT_S[found[2]] * 1_000_000
        return max(0, SystemClock().now_us() - ago_us)
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError:
        raise UsageError(
            f"{text!r} is neither a time span nor a day",
            where="--since",
            next_step="write 30m, 12h, 7d, 4w, or a day like 2026-11-21",
        ) from None
    return max(0, int(day.timestamp())) * 1_000_000
