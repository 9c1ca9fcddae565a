"""Whether a name that a person typed was ever heard of, and which ones are near it."""

from __future__ import annotations

import difflib
from contextlib import suppress
from typing import TYPE_CHECKING

from toolkit.errors import NotFound, ToolkitError

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench

__all__ = ["check_known", "known_names", "unknown_name"]

_NEAR = 3


def known_names(bench: Workbench, kind: str) -> set[str]:
    """Return every name of one kind: what is written down here, and what was ever recorded.

    A file with a fault has no names; whoever asks is not kept from what they do by it.

    Args:
        bench: The workspace.
        kind: ``job``, ``user``, ``team``, ``agent``, ``route`` or ``tool``.
    """
    found = bench.ledger.seen(kind)
    with suppress(ToolkitError):
        found |= _written(bench, kind)
    return found


def unknown_name(bench: Workbench, kind: str, name: str) -> str | None:
    """Return what to tell about a name that was never heard of; ``None`` for any other one."""
    if kind == "run":
        return None if _is_run(bench, name) else f"there is no run {name!a} here"
    known = known_names(bench, kind)
    if name in known:
        return None
    near = difflib.get_close_matches(name, sorted(known), n=_NEAR)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"no {kind} {name!a} was ever heard of here{hint}"


def check_known(bench: Workbench, kind: str, name: str, *, next_step: str) -> None:
    """Refuse a name that was never heard of.

    Raises:
        NotFound: With the names that are near it.
    """
    if (said := unknown_name(bench, kind, name)) is not None:
        raise NotFound(said, where=name, next_step=next_step)


def _written(bench: Workbench, kind: str) -> set[str]:
    if kind == "job":
        return set(bench.registry.jobs())
    if kind == "route":
        return {"default", *bench.governance.catalog().routes}
    if kind == "user":
        return {bench.workspace.user, *bench.governance.people()}
    if kind == "team":
        return {person.team for person in bench.governance.people().values() if person.team}
    if kind == "tool":
        from toolkit.policy import ToolCatalog

        return set(ToolCatalog.load(bench.workspace.registry / "tools.yaml"))
    return set()


def _is_run(bench: Workbench, run_id: str) -> bool:
    from toolkit.app.queued import QueuedRuns

    with suppress(NotFound):
        return bool(bench.ledger.get_run(run_id))
    with suppress(ToolkitError):
        return QueuedRuns(bench).look(run_id) is not None
    return False
