"""A run that starts again: where its journal ends, and whether it still asks what it asked before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toolkit.client import Connection, wire
from toolkit.errors import ToolkitError
from toolkit.execution.facts import Ending
from toolkit.ledger import Ledger
from toolkit.values import FAILED_FROM, RESUMED, Cause, RunRecord, RunState

__all__ = ["DIVERGED", "ask_journal", "compare", "failed_tags", "started_again"]

DIVERGED = "divergence"
"""Tag of a run that asked for something else when it started again: the first difference."""


def started_again(ledger: Ledger, run: RunRecord, tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of a run that is about to start again: everything up to here is its journal.

    One that was only planned so far (a run that another one started) begins, and has none.
    """
    if run.state is RunState.QUEUED:
        return tags
    return {**tags, RESUMED: str(ledger.last_seq(run.run_id))}


def failed_tags(tags: dict[str, str], ending: Ending) -> dict[str, str]:
    """Return the tags of a run that ends: since when a cell ran that infrastructure ended, if it did.

    What failed in it is asked anew when the run goes on.
    """
    kept = {name: value for name, value in tags.items() if name != FAILED_FROM}
    if ending.cause is not Cause.INFRASTRUCTURE or ending.cell_us is None:
        return kept
    return {**kept, FAILED_FROM: str(ending.cell_us)}


def ask_journal(socket: str, token: str) -> dict[str, Any]:
    """Return how far a run has come in its journal; its token must still be valid.

    Raises:
        ToolkitError: The gateway cannot tell.
    """
    connection = Connection(socket, token=token)
    try:
        return connection.post(wire.JOURNAL, {})
    finally:
        connection.close()


def compare(
    ledger: Ledger, run: RunRecord, at: tuple[str, str], ending: Ending, warnings: list[str]
) -> tuple[RunRecord, Ending]:
    """Compare what a run that started again has asked with what it asked before, and record it.

    Args:
        ledger: Where the run is.
        run: The run, which has not ended yet.
        at: The gateway's socket, and the run's token.
        ending: How its execution ended.
        warnings: What a reader should know is added here.

    Raises:
        Conflict: The run is another process's by now.

    Returns:
        The run, with the first difference in its tag, and its ending: a run that was stopped has
        failed, whatever its notebook made of that.
    """
    if RESUMED not in run.tags or ending.state is RunState.WAITING:
        return run, ending
    try:
        told = ask_journal(*at)
    except ToolkitError as error:
        warnings.append(f"whether the run asked what it asked before is not known: {error}")
        return run, ending
    first = told["first"]
    # A run that ended early could not ask for everything; what it asked otherwise still counts.
    if first is None or not (first["asked"] or ending.state is RunState.SUCCEEDED):
        return run, ending
    said = str(first["message"])
    doubt = " (the gateway started again meanwhile: it may be wrong)" if told["partial"] else ""
    warnings.append(f"the run started again and asked for something else: {said}{doubt}")
    if told["stopped"] and ending.state is RunState.SUCCEEDED:
        message = f"the run asks for another write than before: {said}"
        ending = replace(ending, state=RunState.FAILED, cause=Cause.DIVERGENCE, message=message)
    return ledger.take(run, tags={**run.tags, DIVERGED: said}), ending
