"""Recorded calls under another policy: what would be denied, asked or allowed that was not before."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.errors import InvalidFile, NotFound, UsageError
from toolkit.policy import (
    PastCall,
    People,
    PolicyBundle,
    PolicyRequest,
    Simulation,
    ToolCatalog,
    merged,
    simulate,
)
from toolkit.values import (
    NO_LABELS,
    CallKind,
    Environment,
    Labels,
    Verdict,
)

if TYPE_CHECKING:
    from toolkit.ledger import RecordedDecision
    from toolkit.promotion import JobHistory

__all__ = ["SessionLabels", "default_route_name", "past_calls", "simulate_bundle", "simulate_job"]

# Verdicts of other controls: what policy had said before is not recorded.
_OTHER_CONTROLS = {"budget", "unknown-price", "stop", "no-target", "divergence"}
_SHADOW = "shadow"  # the first policy of a write that a shadow run does not do
_DATA_FACTS = frozenset({"source", "tables", "columns", "write", "region", "external"})
_MODEL_FACTS = frozenset({"region", "allowed_classes", "external"})
_MOST_PROCESSES = 4
_WORTH_A_PROCESS = 20_000  # calls; starting a process takes as long as deciding so many
_TOOL_FACTS = frozenset({"host"})
_TARGET = frozenset({"provider", "model"})


@dataclass(slots=True)
class SessionLabels:
    """What each run had read by a moment, from the labels of recorded answers."""

    _seen: dict[str, dict[Labels, int]] = field(default_factory=dict)

    def at(self, run_id: str, at_us: int) -> Labels:
        """Return the labels of everything that the run's calls had answered by then."""
        found = NO_LABELS
        for labels, ended_us in self._seen.get(run_id, {}).items():
            if ended_us <= at_us:
                found = found | labels
        return found

    def add(self, call: RecordedDecision) -> None:
        """Keep the labels of a call's answer."""
        if call.answer_labels and call.ended_us is not None:
            known = self._seen.setdefault(call.run_id, {})
            first = known.get(call.answer_labels, call.ended_us)
            known[call.answer_labels] = min(first, call.ended_us)


def past_calls(
    recorded: Iterable[RecordedDecision],
    environment: Environment,
    people: People,
    *,
    since_us: int = 0,
    default_route: str = "default",
) -> Iterator[PastCall]:
    """Turn recorded calls into questions to the bundle of an environment.

    A call counts when policy of that environment was asked about it: runs of the environment
    itself, and for production also the calls of the sandbox that production was asked about.
    Roles and teams are those of today.
    """
    sessions = SessionLabels()
    roles: dict[str, tuple[str, ...]] = {}
    for call in recorded:
        session = sessions.at(call.run_id, call.started_us)
        sessions.add(call)
        before = _verdict(call, environment)
        if before is None or call.started_us < since_us:
            continue
        user = call.user
        if user not in roles:
            roles[user] = people.roles(user)
        name = call.name
        is_model = call.kind is CallKind.MODEL
        if is_model and name == "default":
            name = default_route
        targets = _targets(call)
        question = PolicyRequest(
            user=user,
            team=call.team or people.team(user),
            roles=roles[user],
            action=f"call_{call.kind.value}",
            resource=name,
            environment=environment,
            job=call.job,
            version=call.version,
            purpose=call.purpose,
            effect=call.effect,
            arguments=call.arguments,
            route=name if is_model else None,
            agent=call.agent,
            labels=call.labels,
            session=session,
        )
        first, *others = [
            replace(question, provider=provider, model=model) for provider, model in targets
        ] or [question]
        yield PastCall(
            call_id=f"{call.run_id}/{call.call_key}/{call.generation}",
            request=first,
            verdict=before,
            unknown=_unknown(call.kind) | (_TARGET if is_model and not targets else frozenset()),
            others=tuple(others),
        )


def _targets(call: RecordedDecision) -> list[tuple[str, str]]:
    """Return the targets (provider, model) that policy was asked about; none, where nobody noted them.

    Before they were noted, whoever answered is the best that is known; of a call that was refused or
    failed, nothing is.
    """
    if call.kind is not CallKind.MODEL:
        return []
    if call.decision.targets:
        pairs = (target.partition("/") for target in call.decision.targets)
        return [(provider, model) for provider, _, model in pairs]
    answered = call.answered and call.provider is not None and call.model is not None
    return [(str(call.provider), str(call.model))] if answered else []


def _verdict(call: RecordedDecision, environment: Environment) -> Verdict | None:
    """What policy of that environment said, ``None`` if it was not asked."""
    decision = call.decision
    if call.kind is CallKind.HUMAN:  # the gateway's own questions
        return None
    if call.environment is environment:
        if decision.policies[:1] == (_SHADOW,):
            return None
        if decision.verdict is Verdict.DENY and _OTHER_CONTROLS.issuperset(
            decision.policies or "?"
        ):
            return None
        return decision.verdict
    return decision.production_verdict if environment is Environment.PRODUCTION else None


def _unknown(kind: CallKind) -> frozenset[str]:
    facts = {CallKind.DATA: _DATA_FACTS, CallKind.MODEL: _MODEL_FACTS, CallKind.TOOL: _TOOL_FACTS}
    return facts.get(kind, frozenset())


def simulate_bundle(
    bench: Workbench,
    *,
    environment: Environment,
    since_us: int = 0,
    folder: Path | None = None,
    examples: int = 3,
) -> Simulation:
    """Decide the recorded calls again under a bundle.

    Args:
        bench: The workspace.
        environment: Whose policy; production also looks at what the sandbox asked it.
        since_us: Calls that began at this moment or later.
        folder: A changed bundle, named like the environment; default: the present one.  Its
            tool catalog is the one beside it, else the present one.
        examples: How many calls of each difference are kept.

    Raises:
        InvalidFile, NotFound: The bundle has faults or is not there.
        LedgerError: The ledger cannot be read.
    """
    task = _Task(bench.workspace.root, environment, since_us, folder, examples)
    _bundle(bench.workspace.registry, environment, folder)  # faults are told before any work
    workers = min(os.cpu_count() or 1, _MOST_PROCESSES)
    if workers == 1 or bench.ledger.count_decisions(since_us) < _WORTH_A_PROCESS:
        return _simulate(bench, task, None)
    # Runs are independent of one another, so each process takes every n-th.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        shares = [pool.submit(_simulate_share, task, (n, workers)) for n in range(workers)]
        return merged([share.result() for share in shares], examples=examples)


def simulate_job(
    bench: Workbench, job: str, bundle: PolicyBundle, since_us: int, most: int
) -> JobHistory:
    """Decide what a job's runs and rehearsals did in production again under a bundle.

    Args:
        bench: The workspace.
        job: Whose calls.
        bundle: The production bundle to try.
        since_us: Calls that began at this moment or later.
        most: How many calls at most; the newest count.

    Raises:
        LedgerError: The ledger cannot be read.
    """
    from toolkit.promotion import KINDS, JobHistory

    recorded, from_us = bench.ledger.newest_of_job(job, KINDS, since_us=since_us, most=most)
    people = People.load(bench.workspace.registry / "people.yaml")
    answers = any(policy.reads.has("session") for policy in bundle.policies)
    found = bench.ledger.decisions(since_us=from_us, answers=answers, job=job, kinds=KINDS)
    calls = past_calls(
        found,
        bundle.environment,
        people,
        since_us=from_us,
        default_route=default_route_name(bench),
    )
    return JobHistory(simulate(calls, bundle), recorded, from_us)


@dataclass(frozen=True, slots=True)
class _Task:
    """What a process has to know to take its share of a simulation."""

    root: Path
    environment: Environment
    since_us: int
    folder: Path | None
    examples: int


def _simulate_share(task: _Task, share: tuple[int, int]) -> Simulation:
    with open_workbench(task.root) as bench:
        return _simulate(bench, task, share)


def _simulate(bench: Workbench, task: _Task, share: tuple[int, int] | None) -> Simulation:
    registry = bench.workspace.registry
    bundle = _bundle(registry, task.environment, task.folder)
    people = People.load(registry / "people.yaml")
    answers = any(policy.reads.has("session") for policy in bundle.policies)
    recorded = bench.ledger.decisions(since_us=task.since_us, answers=answers, share=share)
    default = default_route_name(bench)
    calls = past_calls(
        recorded, task.environment, people, since_us=task.since_us, default_route=default
    )
    return simulate(calls, bundle, examples=task.examples)


def _bundle(registry: Path, environment: Environment, folder: Path | None) -> PolicyBundle:
    if folder is None:
        return PolicyBundle.load(registry / "policies" / environment.value)
    beside = folder.resolve().parent.parent / "tools.yaml"
    own = beside.exists()
    present = registry / "tools.yaml"
    tools = None if own or not present.exists() else ToolCatalog.load(present)
    bundle = PolicyBundle.load(folder, tools=tools)
    if bundle.environment is not environment:
        raise UsageError(
            f"{folder} is a bundle of {bundle.environment}, not of {environment}",
            where=str(folder),
            next_step=f"add --environment {bundle.environment}",
        )
    return bundle


def default_route_name(bench: Workbench) -> str:
    """Return the name of the route that ``default`` stands for."""
    try:
        return bench.governance.route("default").name
    except (InvalidFile, NotFound):  # a workspace without models; names are compared as recorded
        return "default"
