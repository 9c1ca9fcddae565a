"""Policy as files that people change: check them, test them, try them on the past, propose them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.app.simulations import default_route_name
from toolkit.app.workbench import Workbench
from toolkit.errors import InvalidFile, NotFound, ToolkitError
from toolkit.policy import (
    CASES_FILE,
    CaseResult,
    Mined,
    People,
    PolicyBundle,
    RunUse,
    SeenCall,
    ToolCatalog,
    mine,
    read_cases,
    run_cases,
)
from toolkit.values import (
    CallKind,
    CallState,
    RunKind,
    Verdict,
)

if TYPE_CHECKING:
    from toolkit.ledger import RecordedDecision

__all__ = [
    "BundleReport",
    "check_bundles",
    "mine_bundle",
    "run_policy_tests",
]


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
        signed = (registry / "trust" / "root.json").exists()
        approvers = () if signed else _too_few_approvers(bundle, people)
        notes = (*_idle_roles(bundle, people), *approvers, *_untyped(bundle))
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


def _too_few_approvers(bundle: PolicyBundle, people: People) -> Iterator[str]:
    """Versions that nobody, or not enough people, could let in."""
    rules = {"promotion": bundle.promotion.default}
    rules |= {f"promotion.jobs.{job}": rule for job, rule in bundle.promotion.jobs.items()}
    told = set()
    for place, rule in rules.items():
        able = {user for role in rule.roles for user in people.with_role(role)}
        if len(able) >= rule.approvals or (rule.approvals, rule.roles) in told:
            continue
        told.add((rule.approvals, rule.roles))
        word = "role" if len(rule.roles) == 1 else "roles"
        have = (
            f"only {len(able)} of registry/people.yaml has one"
            if able
            else "which nobody in registry/people.yaml has"
        )
        yield (
            f"policy.yaml: {place}.from names the {word} {', '.join(rule.roles)}, {have}; "
            f"approvals asks for {rule.approvals}"
        )


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
    default = default_route_name(bench)
    calls: list[SeenCall] = []
    runs: dict[str, None] = {}
    for call in recorded:
        sandbox = call.run_kind in (RunKind.SESSION, RunKind.TRIAL)
        if not sandbox or call.decision.verdict is Verdict.DENY:
            continue
        is_default = call.kind is CallKind.MODEL and call.name == "default"
        name = default if is_default else call.name
        read, answered = _read(bench, call) if call.kind is CallKind.DATA else (None, True)
        calls.append(
            SeenCall(call.kind, name, call.effect, call.arguments, read=read, answered=answered)
        )
        runs[call.run_id] = None
    return calls, list(runs)


def _read(
    bench: Workbench, call: RecordedDecision
) -> tuple[tuple[frozenset[str], frozenset[str]] | None, bool]:
    """Return the tables and columns that a call read, where they are recorded; whether it did."""
    outcome = bench.ledger.get_call(call.run_id, call.call_key, call.generation).outcome
    if outcome is None or outcome.state is not CallState.OK:
        return None, False
    answer = outcome.answer if isinstance(outcome.answer, dict) else {}
    tables, columns = answer.get("tables"), answer.get("reads")
    if not isinstance(tables, list) or not isinstance(columns, list):
        return None, True  # recorded by an older gateway
    return (frozenset(map(str, tables)), frozenset(map(str, columns))), True


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
