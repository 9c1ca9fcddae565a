"""Policy as files that people change: check them, test them, try them on the past, propose them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.app.workbench import Workbench, open_workbench
from toolkit.errors import InvalidFile, NotFound, ToolkitError, UsageError
from toolkit.policy import (
    CASES_FILE,
    CaseResult,
    Mined,
    PastCall,
    People,
    PolicyBundle,
    PolicyRequest,
    RunUse,
    SeenCall,
    Simulation,
    ToolCatalog,
    merged,
    mine,
    read_cases,
    run_cases,
    simulate,
)
from toolkit.values import (
    NO_LABELS,
    CallKind,
    Environment,
    Labels,
    RunKind,
    Verdict,
)

if TYPE_CHECKING:
    from toolkit.ledger import RecordedDecision

__all__ = [
    "BundleReport",
    "SessionLabels",
    "check_bundles",
    "mine_bundle",
    "past_calls",
    "run_policy_tests",
    "simulate_bundle",
]

# Denials by other controls: what policy had said before is not recorded.
_OTHER_CONTROLS = {"budget", "unknown-price", "stop"}
_DATA_FACTS = frozenset({"source", "tables", "columns", "write", "region", "external"})
_MODEL_FACTS = frozenset({"region", "allowed_classes", "external"})
_MOST_PROCESSES = 4
_WORTH_A_PROCESS = 20_000  # calls; starting a process takes as long as deciding so many
_TOOL_FACTS = frozenset({"host", "method"})


@dataclass(frozen=True, slots=True)
class BundleReport:
    """What checking one bundle found.

    Attributes:
        environment: Its folder.
        digest, policies, tools: Of the bundle; ``None`` and 0 where it has faults.
        error: Every fault of the bundle.
        notes: What loads, but will not work as somebody must have meant it.
    """

    environment: str
    digest: str | None = None
    policies: int = 0
    tools: int = 0
    error: ToolkitError | None = None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "environment": self.environment,
            "digest": self.digest,
            "policies": self.policies,
            "tools": self.tools,
            "error": None if self.error is None else self.error.to_json(),
            "notes": list(self.notes),
        }


def check_bundles(registry: Path, environments: Iterable[str] = ()) -> list[BundleReport]:
    """Load bundles and look for what can be known without a call.

    Args:
        registry: The registry folder.
        environments: Which; default: every folder of ``policies/``.

    Raises:
        NotFound: There is no bundle at all.
    """
    folder = registry / "policies"
    names = list(environments)
    if not names and folder.is_dir():
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise NotFound(
            f"there is no policy bundle in {folder}",
            where=str(folder),
            next_step="run `toolkit init` for a workspace with two bundles",
        )
    people, people_error = _people(registry)
    reports = []
    for name in names:
        try:
            bundle = PolicyBundle.load(folder / name)
            tests = folder / name / CASES_FILE
            if tests.exists():
                read_cases(tests)
        except (InvalidFile, NotFound) as error:
            reports.append(BundleReport(name, error=error))
            continue
        if people_error is not None:
            reports.append(BundleReport(name, bundle.digest, error=people_error))
            continue
        notes = (*_idle_roles(bundle, people), *_untyped(bundle))
        reports.append(
            BundleReport(name, bundle.digest, len(bundle.policies), len(bundle.tools), notes=notes)
        )
    return reports


def _people(registry: Path) -> tuple[People, ToolkitError | None]:
    try:
        return People.load(registry / "people.yaml"), None
    except (InvalidFile, NotFound) as error:
        return People({}), error


def _idle_roles(bundle: PolicyBundle, people: People) -> Iterator[str]:
    """Questions that nobody could answer."""
    wanted: dict[str, str] = {}
    for policy in bundle.policies:
        if policy.ask is not None and policy.shadow is None:
            wanted.setdefault(policy.ask, f"{policy.place}: @ask")
    if bundle.approvals.escalate_to is not None:
        wanted.setdefault(bundle.approvals.escalate_to, "policy.yaml: approvals.escalate_to")
    for role, place in wanted.items():
        if not people.with_role(role):
            yield f"{place} names the role {role}, which nobody in registry/people.yaml has"


def _untyped(bundle: PolicyBundle) -> Iterator[str]:
    """Writes whose arguments nothing checks."""
    names = [
        tool.name
        for tool in bundle.tools.values()
        if tool.effect.value == "write" and tool.arguments is None
    ]
    if names:
        shown = ", ".join(names[:8]) + (" …" if len(names) > 8 else "")
        yield f"tools.yaml: no arguments are declared for the writing tools {shown}"


def run_policy_tests(registry: Path, environment: str) -> list[CaseResult]:
    """Run the cases of ``tests.yaml`` beside a bundle.

    Raises:
        InvalidFile, NotFound: The bundle, its cases or ``people.yaml`` have faults.
    """
    folder = registry / "policies" / environment
    bundle = PolicyBundle.load(folder)
    cases = read_cases(folder / CASES_FILE)
    return run_cases(bundle, cases, People.load(registry / "people.yaml"))


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
        yield PastCall(
            call_id=f"{call.run_id}/{call.call_key}/{call.generation}",
            request=PolicyRequest(
                user=user,
                team=call.team,
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
                provider=call.provider,
                model=call.model,
                agent=call.agent,
                labels=call.labels,
                session=session,
            ),
            verdict=before,
            unknown=_unknown(call.kind),
        )


def _verdict(call: RecordedDecision, environment: Environment) -> Verdict | None:
    """What policy of that environment said, ``None`` if it was not asked."""
    decision = call.decision
    if call.environment is environment:
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
    default = _default_route(bench)
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


def _default_route(bench: Workbench) -> str:
    try:
        return bench.governance.route("default").name
    except (InvalidFile, NotFound):  # a workspace without models; names are compared as recorded
        return "default"


def mine_bundle(bench: Workbench, target: str, *, job: str | None = None) -> Mined:
    """Propose a production bundle from what the sandbox runs of a notebook recorded.

    Args:
        bench: The workspace.
        target: A run id, or a notebook's path.
        job: Limits every permit to one job.

    Raises:
        NotFound: Nothing was recorded for it.
        InvalidFile: ``tools.yaml`` has faults.
    """
    calls, runs = _seen(bench, target)
    if not calls:
        raise NotFound(
            f"the ledger has no call of {target} that was let through in the sandbox",
            where=target,
            next_step="run the notebook once: toolkit run NOTEBOOK; or name a run of `toolkit runs`",
        )
    path = bench.workspace.registry / "tools.yaml"
    tools = ToolCatalog.load(path) if path.exists() else ToolCatalog({})
    return mine(calls, [_use(bench, run_id) for run_id in runs], tools, job=job)


def _seen(bench: Workbench, target: str) -> tuple[list[SeenCall], list[str]]:
    try:
        bench.ledger.get_run(target)
        recorded = bench.ledger.decisions(run_id=target)
    except NotFound:
        notebook = bench.relative(Path(target))
        recorded = bench.ledger.decisions(notebook=notebook)
    default = _default_route(bench)
    calls: list[SeenCall] = []
    runs: dict[str, None] = {}
    for call in recorded:
        sandbox = call.run_kind in (RunKind.SESSION, RunKind.TRIAL)
        if not sandbox or call.decision.verdict is Verdict.DENY:
            continue
        is_default = call.kind is CallKind.MODEL and call.name == "default"
        name = default if is_default else call.name
        calls.append(SeenCall(call.kind, name, call.effect, call.arguments))
        runs[call.run_id] = None
    return calls, list(runs)


def _use(bench: Workbench, run_id: str) -> RunUse:
    totals = bench.ledger.totals(run_id)
    results = totals.by_kind.get(CallKind.RESULT.value, 0)
    return RunUse(
        totals.cost,
        totals.unknown_cost_calls,
        totals.input_tokens + totals.output_tokens,
        totals.calls - results,
        totals.spent_seconds,
    )
