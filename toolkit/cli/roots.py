"""How a root of the registry is shown: people, roles, thresholds, what moves with approvals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.cli import show

if TYPE_CHECKING:
    from toolkit.trust import Root, RootFacts

__all__ = ["show_facts", "tell_root"]


def tell_root(root: Root, json: bool, said: str) -> None:  # noqa: FBT001
    """Print a root in force and what became of it."""
    if json:
        show.print_json(
            {"signed": True, "digest": root.digest, "standing": said, **root.facts.model_dump()}
        )
        return
    show_facts(root.facts)
    show.out.print(f"digest   {root.digest}", soft_wrap=True)
    if said:
        show.out.print(f"[yellow]{show.safe(said)}[/]")


def show_facts(facts: RootFacts) -> None:
    """Print what a root says, in force or not."""
    show.out.print(
        f"[bold]root {facts.version}[/]  good until {facts.expires}, epoch {facts.epoch}"
    )
    rows = [
        (name, entry.name, entry.email, ", ".join(sorted(entry.roles)), len(entry.keys))
        for name, entry in facts.people.items()
    ]
    show.out.print(show.table(None, ("person", "name", "address", "roles", ">keys"), rows))
    takes = ", ".join(f"{role} {number}" for role, number in sorted(facts.roles.items()))
    show.out.print(f"takes    {show.safe(takes)}")
    for alias, environment in facts.protected.items():
        show.out.print(f"{show.safe(alias)} moves with approvals for {show.safe(environment)}")
    if facts.separate:
        show.out.print("nobody approves versions, and policies or roots too")
    for environment in facts.policies or ():
        show.out.print(f"nothing runs without a signed policy of {show.safe(environment)}")
    if not facts.protected:
        show.out.print("[yellow]no alias needs approvals[/]")
