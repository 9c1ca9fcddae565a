"""The lines that say how a run stands, for every command that tells of one."""

from __future__ import annotations

from typing import Any

from toolkit.app.workbench import Workbench
from toolkit.cli import show
from toolkit.cli.run_json import wall_s
from toolkit.values import RunRecord

__all__ = ["brief", "show_header", "what_of"]


def show_header(
    bench: Workbench,
    record: RunRecord,
    totals: Any,
    *,
    seconds: float | None = None,
    cell: int | None = None,
) -> None:
    """Print how a run stands, and its figures.

    Args:
        bench: The workspace.
        record: The run.
        totals: What its calls came to.
        seconds: How long it took, if not by its record.
        cell: Where it ended, counted from 1.
    """
    del bench
    what = what_of(record)
    cause = f" ({record.cause})" if record.cause else ""
    show.out.print(f"{show.state_text(record.state)}{cause}  {show.safe(what)}  {record.run_id}")
    if record.message:
        place = f"cell {cell}: " if cell and f"cell {cell}" not in record.message else ""
        show.out.print(f"  {place}{show.safe(record.message)}")
    if said := record.tags.get("divergence"):
        show.out.print(f"  [yellow]resumed otherwise than before:[/] {show.safe(said)}")
    facts = [
        ("user", f"{record.user} in {record.environment}"),
        ("took", show.seconds(seconds if seconds is not None else wall_s(record))),
        ("calls", _counts(record, totals)),
        ("tokens", f"{totals.input_tokens:,} in, {totals.output_tokens:,} out"),
        ("cost", show.money(totals.cost, totals.unknown_cost_calls)),
        (
            "latency",
            f"p50 {show.seconds(totals.latency_p50_s)}, p95 {show.seconds(totals.latency_p95_s)}",
        ),
        ("policy", record.policy_digest or "–"),
    ]
    for name, value in facts:
        show.out.print(f"  {name:<11} {show.safe(value)}")


def _counts(record: RunRecord, totals: Any) -> str:
    text = f"{totals.calls} ({totals.errors} failed, {totals.denied} denied"
    doubtful = totals.unfinished if record.state.terminal else 0
    return f"{text}, {doubtful} in doubt)" if doubtful else f"{text})"


def what_of(record: RunRecord) -> str:
    """Return what a run runs, as a person names it."""
    if record.job and record.version:
        return f"{record.job}@{record.version}"
    return record.job or record.notebook or record.kind


def brief(value: Any) -> str:
    """Return a value on a short line."""
    if isinstance(value, dict) and value.get("type") == "table":
        return f"table, {len(value['rows'])} rows × {len(value['columns'])} columns"
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
