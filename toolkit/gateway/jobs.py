"""Jobs that notebooks run: each call starts one run, waits for its end and answers its results.

The run's id follows from the call, so a call that is made again (its notebook started again, the
gateway died) finds the run that it started.  Where it runs is not decided here: see :class:`Runs`.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any, Protocol

from toolkit.client import wire
from toolkit.errors import Conflict, JobFailed, NotFound, ToolkitError, UsageError
from toolkit.gateway.app import Handler, Links
from toolkit.gateway.divergence import REPLAYS
from toolkit.gateway.door import Door
from toolkit.gateway.exchange import log_fault
from toolkit.gateway.replies import call_reply
from toolkit.gateway.work import Work
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Effect,
    Intent,
    JobRef,
    Labels,
    Outcome,
    RunRecord,
    RunState,
    Source,
    child_run_id,
    child_tags,
    lineage_of,
)

__all__ = ["MOST_DEEP", "SELECTOR", "JobDoor", "Runs"]

SELECTOR = "@"
"""The argument that names a version or an alias."""
OFFERED = "job."
"""Before the names of jobs in the tool catalog, which MCP clients are offered."""
_MODELS_OFFERED = "job-"
MOST_DEEP = 8
"""Runs above one another."""

_SOON_S = 0.1
_LATE_S = 1.0
_SWEEP_S = 5.0
_MOST = 1_000
_PURPOSE_CHARS = 500
_INTERNAL = Labels(frozenset({Source.INTERNAL}))


class Runs(Protocol):
    """Plans, starts and ends runs: a queue with its workers, or processes of this machine.

    Its methods are called in threads.
    """

    def plan(
        self, parent: RunRecord, reference: str, parameters: dict[str, Any], run_id: str
    ) -> RunRecord:
        """Return the run of a registered version as it is to be recorded, queued.

        Raises:
            NotFound, IntegrityError, UsageError: There is no such version, it was changed, or the
                parameters do not fit.
        """
        ...

    def look(self, run: RunRecord) -> tuple[RunRecord, bool]:
        """See to it that a recorded run is done, and return it and whether it has ended for good.

        Called again and again: it starts what nobody does, once, and never twice at a time.
        """
        ...

    def cancel(self, run: RunRecord, reason: str) -> None:
        """Cancel a run and the runs below it; one that has ended stays as it is."""
        ...

    def describe(self, reference: str) -> dict[str, Any]:
        """Return name, version, description, parameters (JSON Schema) and results of a version.

        Raises:
            NotFound: There is none.
        """
        ...


class JobDoor:
    """Jobs, behind the door.

    Args:
        door: Decides and records.
        links: Where people look at what was recorded.
        runs: Does the runs.
    """

    def __init__(self, door: Door, links: Links, runs: Runs) -> None:
        self._door = door
        self._links = links
        self._runs = runs
        self._swept = 0.0
        self._sweeping: asyncio.Task[None] | None = None

    def handlers(self) -> dict[str, Handler]:
        """Return handlers by path of the toolkit's own protocol."""
        return {wire.JOB: self._call, wire.JOB_CANCEL: self._cancel, wire.JOBS: self._describe}

    async def offered(self, run: RunRecord) -> list[dict[str, Any]]:
        """Return the jobs that the tool catalog names (``job.NAME``), as a model needs them.

        One that has no version in production is left out.
        """
        tools = self._door.governance.bundle(run.environment).tools
        found = []
        for entry in tools.values():
            if entry.name.startswith(OFFERED):
                try:
                    name = entry.name.removeprefix(OFFERED)
                    told = await asyncio.to_thread(self._runs.describe, name)
                except ToolkitError:
                    continue
                about = entry.description or told["description"]
                tool = {"description": about, "parameters": told["parameters"]}
                found.append({"name": entry.name, "effect": Effect.WRITE.value, **tool})
        return found

    def named(self, run: RunRecord, given: str) -> str | None:
        """Return the job that a tool's name stands for, if the catalog offers it."""
        if not given.startswith((OFFERED, _MODELS_OFFERED)):
            return None
        name = given[len(OFFERED) :]
        tools = self._door.governance.bundle(run.environment).tools
        for entry in tools.values():
            job = entry.name.removeprefix(OFFERED)
            if job != entry.name and name in (job, job.replace(".", "-")):
                return job
        return None

    async def invoke(self, run: RunRecord, intent: Intent) -> CallRecord:
        """Make one call through the door and return its record, once the job has ended.

        Raises:
            CallDenied, BudgetExceeded: See ``Door.perform``.
        """
        if run.kind in REPLAYS:  # no run is started: its journal holds the answer
            return (await self._door.replayed(run, intent)).call

        async def perform(call: CallRecord, arguments: Any) -> Outcome:
            child = await asyncio.to_thread(self._child, run, call, arguments)
            return await self._outcome(call, await self._ended(child))

        return await self._door.perform(run, intent, Work(perform))

    def tend(self) -> None:
        """Look now and then for runs whose parent has ended without them; called in the loop."""
        now = time.monotonic()
        if now - self._swept < _SWEEP_S or (self._sweeping and not self._sweeping.done()):
            return
        self._swept = now
        self._sweeping = asyncio.get_running_loop().create_task(self._swept_once())

    def sweep(self) -> list[str]:
        """Cancel unfinished runs whose parent has ended for good or was stopped; return their ids.

        Whoever waits for a run does this too; here it is for runs that nobody waits for any more.
        """
        found = []
        for state in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING):
            for run in self._door.ledger.runs(state=state, limit=_MOST):
                if lineage_of(run) and (why := self._why_over(run)) is not None:
                    self._runs.cancel(run, why)
                    found.append(run.run_id)
        return found

    # -- the toolkit's own protocol -----------------------------------------------------------

    async def _call(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        intent = _intent(run, body)
        call = await self.invoke(run, intent)
        again = call.intent.request_id != intent.request_id or call.intent.run_id != run.run_id
        return call_reply(call, run, self._links, replayed=again)

    async def _cancel(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        privacy = self._door.governance.privacy(run)
        intent, _ = self._door.screen.arguments(run, _intent(run, body), privacy)
        told = await asyncio.to_thread(self._cancelled, run, intent)
        return {"run_id": told}

    async def _describe(self, run: RunRecord, body: dict[str, Any]) -> dict[str, Any]:
        del run
        name, chosen = str(body.get("name")), body.get(SELECTOR)
        return await asyncio.to_thread(self._runs.describe, _reference(name, chosen))

    # -- one run ------------------------------------------------------------------------------

    def _child(self, parent: RunRecord, call: CallRecord, arguments: Any) -> RunRecord:
        """Return the run of a call, recorded now or before.

        Raises:
            NotFound, UsageError: It cannot be planned.
            Conflict: The id is taken by a run that somebody else started.
        """
        ledger, run_id = self._door.ledger, child_run_id(call.call_id)
        try:
            known = ledger.get_run(run_id)
        except NotFound:
            known = None
        if known is None:
            _check_family(parent, call.intent.name)
            given = dict(arguments) if isinstance(arguments, dict) else {}
            chosen = given.pop(SELECTOR, None)
            planned = self._runs.plan(parent, _reference(call.intent.name, chosen), given, run_id)
            intent = call.intent
            labels = {name: intent.labels[name] for name in given if name in intent.labels}
            tags = child_tags(parent, agent=intent.agent, purpose=intent.purpose, labels=labels)
            known = ledger.create_run(
                replace(
                    planned,
                    parent_run_id=parent.run_id,
                    user=parent.user,
                    team=parent.team,
                    tags={**planned.tags, **tags},
                )
            )
        if known.parent_run_id != parent.run_id:
            raise Conflict(
                f"the run {run_id} is there already, and {parent.run_id} did not start it",
                where=run_id,
                next_step=f"see whose it is: toolkit show {run_id}",
            )
        return known

    async def _ended(self, child: RunRecord) -> RunRecord:
        """Wait until a run has ended for good; cancel it when its parent has.

        What cannot be read or reached now (the ledger, the queue) is asked again: the run is safe.
        """
        pause, cancelled, told = _SOON_S, False, False
        while True:
            try:
                child, over = await asyncio.to_thread(self._runs.look, child)
                if over:
                    return child
                why = None if cancelled else await asyncio.to_thread(self._why_over, child)
                if why is not None:
                    await asyncio.to_thread(self._runs.cancel, child, why)
                    cancelled = True
            except ToolkitError as error:
                if not told:
                    log_fault(error)
                told = True
            await asyncio.sleep(pause)
            pause = min(pause * 1.3, _LATE_S)

    def _why_over(self, child: RunRecord) -> str | None:
        """Return why a run is not wanted any more: its parent has ended for good, or was stopped."""
        ledger = self._door.ledger
        above = lineage_of(child)
        stop = ledger.stopped([f"run:{each.run_id}" for each in above])
        if stop is not None:
            return f"{stop.by} stopped {stop.scope}: {stop.reason}"
        parent = ledger.get_run(str(child.parent_run_id))
        if parent.state.terminal and not parent.resumable:
            return f"{parent.run_id}, which started it, has ended ({parent.state})"
        return None

    async def _outcome(self, call: CallRecord, child: RunRecord) -> Outcome:
        labels = await asyncio.to_thread(self._labels, call, child)
        facts = {"run_id": child.run_id, "job": child.job, "version": child.version}
        # Its own calls have taken the time, and were charged with it in every scope above them.
        if child.state is RunState.SUCCEEDED:
            results = await asyncio.to_thread(self._door.ledger.results, child.run_id)
            answer = {**facts, "results": results}
            return Outcome(CallState.OK, answer=answer, labels=labels, seconds=0.0)
        error = _failed(child, facts).to_json()
        return Outcome(CallState.ERROR, error=error, labels=labels, seconds=0.0)

    def _labels(self, call: CallRecord, child: RunRecord) -> Labels:
        """Return whom the results come from: the job, all that it has read, all that it was given."""
        found = _INTERNAL | self._door.recall.session(child)
        for labels in call.intent.labels.values():
            found |= labels if labels.tainted else Labels(classes=labels.classes)
        return found

    def _cancelled(self, run: RunRecord, intent: Intent) -> str | None:
        call = self._door.ledger.lookup(run.run_id, intent.key)
        if call is None or call.outcome is not None:
            return None
        try:
            child = self._door.ledger.get_run(child_run_id(call.call_id))
        except NotFound:
            return None
        self._runs.cancel(child, f"{run.run_id} does not wait for it any more")
        return child.run_id

    async def _swept_once(self) -> None:
        try:
            await asyncio.to_thread(self.sweep)
        except ToolkitError as error:  # the next time
            log_fault(error)


def _check_family(parent: RunRecord, job: str) -> None:
    """Refuse a run that would be its own ancestor, or have too many.

    Raises:
        UsageError: It would.
    """
    above = lineage_of(parent)
    jobs = [parent.job, *(each.job for each in above)]
    if job in jobs:
        path = " → ".join([*(one for one in reversed(jobs) if one), job])
        raise UsageError(
            f"the job {job} would run inside of itself: {path}",
            where=parent.run_id,
            next_step="repeat in plain Python, or give the repeated part a job of its own",
        )
    if len(above) + 1 >= MOST_DEEP:
        raise UsageError(
            f"{len(above) + 1} runs are above one another already; at most {MOST_DEEP} may be",
            where=parent.run_id,
            next_step="call the jobs one after another instead of inside of one another",
        )


def _failed(child: RunRecord, facts: dict[str, Any]) -> JobFailed:
    cause = f" ({child.cause})" if child.cause else ""
    said = f": {child.message}" if child.message else ""
    return JobFailed(
        f"the job {child.job}@{child.version} ended as {child.state}{cause}{said}",
        where=child.run_id,
        next_step=f"toolkit show {child.run_id}",
        details={
            **facts,
            "state": child.state.value,
            "cause": None if child.cause is None else child.cause.value,
        },
    )


def _reference(name: str, chosen: Any) -> str:
    return name if chosen is None else f"{name}@{chosen}"


def _intent(run: RunRecord, body: dict[str, Any]) -> Intent:
    """Read a call's identity from the wire.

    Raises:
        UsageError: A member is missing or malformed.
    """
    purpose = body.get("purpose")
    try:
        name, arguments = str(body["name"]), body.get("arguments")
        intent = Intent(
            run_id=run.run_id,
            kind=CallKind.JOB,
            name=name,
            arguments=arguments,
            parent=body.get("parent"),
            occurrence=int(body.get("occurrence") or 0),
            request_id=str(body["request_id"]),
            effect=Effect.WRITE,  # what a job does is not known here
            cell=body.get("cell"),
            case_id=body.get("case_id"),
            purpose=None if purpose is None else str(purpose)[:_PURPOSE_CHARS],
        )
    except (KeyError, ValueError, TypeError) as error:
        raise UsageError(f"the call is malformed: {error}") from error
    if not isinstance(arguments, dict):
        raise UsageError("the parameters of a job are an object")
    JobRef.parse(_reference(name, arguments.get(SELECTOR)))
    return intent
