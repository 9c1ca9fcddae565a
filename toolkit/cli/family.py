"""A run and the runs below it, as a tree: how each stands, how long it took, what it cost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.tree import Tree

from toolkit.cli import show
from toolkit.cli.run_json import wall_s
from toolkit.ledger import Ledger, Totals
from toolkit.values import Money, RunRecord

__all__ = ["Family", "draw_family", "family_json", "family_of"]

_MOST = 500
"""Runs in one tree; of a larger one, the first are told and the rest is counted."""


@dataclass
class Family:
    """A run with the runs that it started.

    Attributes:
        run: The run.
        totals: Of its own calls.
        children: In the order in which it asked for them.
        left_out: How many of them are not told.
    """

    run: RunRecord
    totals: Totals
    children: list[Family]
    left_out: int = 0

    def all(self) -> Iterator[Family]:
        """Yield this one and everyone below."""
        yield self
        for child in self.children:
            yield from child.all()

    @property
    def cost(self) -> Money:
        """What the run and all below it cost, as far as prices are known."""
        return sum((each.totals.cost for each in self.all()), start=Money(0))

    @property
    def unknown(self) -> int:
        """How many of their calls have no known price."""
        return sum(each.totals.unknown_cost_calls for each in self.all())


def family_of(ledger: Ledger, run: RunRecord, *, most: int = _MOST) -> Family:
    """Read a run and the runs below it; at most ``most``, those near the top first."""
    top = Family(run, ledger.totals(run.run_id), [])
    seen, count, level = {run.run_id}, 1, [top]
    while level:
        below = []
        for each in level:
            children = [c for c in ledger.children(each.run.run_id) if c.run_id not in seen]
            for child in children:
                if count >= most:
                    each.left_out += 1
                    continue
                seen.add(child.run_id)
                count += 1
                each.children.append(Family(child, ledger.totals(child.run_id), []))
            below += each.children
        level = below
    return top


def draw_family(family: Family) -> Tree:
    """Return the tree as rich draws it."""
    whole = show.money(family.cost, family.unknown)
    tree = Tree(f"runs below, {whole} in all" if family.children else "no runs below")
    for child in family.children:
        _draw(tree, child)
    _draw_left(tree, family)
    return tree


def family_json(family: Family) -> list[dict[str, Any]]:
    """Return the runs below a run as JSON values, each with those below it."""
    return [
        {
            "run_id": each.run.run_id,
            "job": each.run.job,
            "version": each.run.version,
            "state": each.run.state.value,
            "cause": each.run.cause.value if each.run.cause else None,
            "seconds": wall_s(each.run),
            "cost_usd": str(each.totals.cost.usd),
            "cost_usd_in_all": str(each.cost.usd),
            "unknown_cost_calls": each.totals.unknown_cost_calls,
            "left_out": each.left_out,
            "children": family_json(each),
        }
        for each in family.children
    ]


def _draw(tree: Tree, family: Family) -> None:
    run = family.run
    cause = f" ({run.cause})" if run.cause else ""
    cost = show.money(family.totals.cost, family.totals.unknown_cost_calls)
    branch = tree.add(
        f"{show.state_text(run.state)}{cause}  {show.safe(f'{run.job}@{run.version}')}  "
        f"{show.safe(run.run_id)}  [dim]{show.seconds(wall_s(run))}  {show.safe(cost)}[/]"
    )
    for child in family.children:
        _draw(branch, child)
    _draw_left(branch, family)


def _draw_left(tree: Tree, family: Family) -> None:
    if family.left_out:
        tree.add(f"[dim]and {family.left_out} more[/]")
