"""Which calls wait for the disk before they start: those that would do harm without a record."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from workspace_world import write_workspace

from toolkit.app.assembly import Assembly
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.values import (
    CallKind,
    CallState,
    Effect,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
)


@pytest.mark.parametrize(
    ("kind", "name", "effect", "before", "after"),
    [
        pytest.param(CallKind.AGENT, "clerk", Effect.READ, 0, 1, id="an agent"),
        pytest.param(CallKind.TOOL, "add", Effect.READ, 1, 2, id="a tool that reads"),
        pytest.param(CallKind.TOOL, "send", Effect.WRITE, 1, 2, id="a tool that writes"),
    ],
)
def test_only_an_agent_begins_before_its_intent_is_on_disk(  # noqa: PLR0917 - pytest names them
    tmp_path: Path, kind: CallKind, name: str, effect: Effect, before: int, after: int
) -> None:
    """A tool of the kernel acts by itself, so its intent is there first; every outcome is."""
    root = tmp_path / "ws"
    root.mkdir()
    workspace = write_workspace(root)
    synced: list[int] = []

    def sync(file: int) -> None:
        synced.append(file)
        os.fdatasync(file)

    async def call(ledger: Ledger, writer: LedgerWriter) -> list[int]:
        run = ledger.create_run(
            RunRecord("session-1", RunKind.SESSION, Environment.SANDBOX, "ana", RunState.RUNNING)
        )
        assembly = Assembly(workspace, ledger, writer)
        try:
            synced.clear()
            intent = Intent(run.run_id, kind, name, {}, request_id="r" * 20, effect=effect)
            begun = await assembly.door.begin(run, intent)
            counts = [len(synced)]
            await assembly.door.finish(
                run, begun.key, begun.generation, Outcome(CallState.OK, answer="done")
            )
            return [*counts, len(synced)]
        finally:
            await assembly.close(1.0)

    with (
        Ledger.open(workspace.database_url, sync=sync) as ledger,
        LedgerWriter(ledger) as writer,
    ):
        assert asyncio.run(call(ledger, writer)) == [before, after]
        assert ledger.verify() == []
