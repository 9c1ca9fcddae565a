"""How a simulation is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli import show

if TYPE_CHECKING:
    from toolkit.policy import Simulation

__all__ = ["show_simulation"]


def show_simulation(found: Simulation) -> None:
    """Print what differs, with examples, and what cannot be told."""
    show.out.print(f"{found.calls:,} recorded calls, {found.same:,} with the same verdict")
    rows = [
        (g.change.value, f"{g.calls:,}", g.action, g.resource, ", ".join(g.policies) or "none")
        for g in found.changed
    ]
    if rows:
        columns = ("change", ">calls", "action", "resource", "policies that decide now")
        show.out.print(show.table(None, columns, rows))
    for group in found.changed:
        for example in group.examples:
            why = "; ".join(example.reasons) or "permitted"
            line = f"  {group.change.value}: {example.call_id} by {example.user}: {why}"
            show.out.print(show.safe(line), soft_wrap=True)
    for (action, resource), calls in sorted(found.not_told.items()):
        line = f"  {calls:,} × {action} {resource}: policy looks at facts that are not recorded"
        show.out.print(show.safe(line), soft_wrap=True)
    if found.more:
        show.out.print(f"  and {found.more:,} more that differ")
