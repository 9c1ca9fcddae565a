"""Which calls wait for the disk before they start: those that would do harm without a record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from workspace_world import write_workspace

from toolkit.app.assembly import Assembly
from toolkit.ledger import Ledger, LedgerWriter, Session
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

T = TypeVar("T")


class Noting(LedgerWriter):
    """Notes which writes have to be on disk before anybody goes on."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger)
        self.asked: list[bool] = []

    def promise(
        self, work: Callable[[Session], T], *, synced: bool = True, alone: bool = False
    ) -> asyncio.Future[T]:
        self.asked.append(synced)
        return super().promise(work, synced=synced, alone=alone)


@pytest.mark.parametrize(
    ("kind", "name", "effect", "syncs"),
    [
        pytest.param(CallKind.AGENT, "clerk", Effect.READ, [False, True], id="an agent"),
        pytest.param(CallKind.TOOL, "add", Effect.READ, [True, True], id="a tool that reads"),
        pytest.param(CallKind.TOOL, "send", Effect.WRITE, [True, True], id="a tool that writes"),
    ],
)
def test_only_an_agent_begins_before_its_intent_is_on_disk(
    tmp_path: Path, kind: CallKind, name: str, effect: Effect, syncs: list[bool]
) -> None:
    """A tool of the kernel acts by itself, so its intent is there first; every outcome is."""
    root = tmp_path / "ws"
    root.mkdir()
    workspace = write_workspace(root)

    async def call(ledger: Ledger, writer: Noting) -> list[bool]:
        run = ledger.create_run(
            RunRecord("session-1", RunKind.SESSION, Environment.SANDBOX, "ana", RunState.RUNNING)
        )
        assembly = Assembly(workspace, ledger, writer)
        try:
            writer.asked.clear()
            intent = Intent(run.run_id, kind, name, {}, request_id="r" * 20, effect=effect)
            begun = await assembly.door.begin(run, intent)
            await assembly.door.finish(
                run, begun.key, begun.generation, Outcome(CallState.OK, answer="done")
            )
            return writer.asked
        finally:
            await assembly.close(1.0)

    with (
        Ledger.open(workspace.database_url) as ledger,
        Noting(ledger) as writer,
    ):
        assert asyncio.run(call(ledger, writer)) == syncs
        assert ledger.verify() == []
