"""From a reference to a finished run: registered versions and sandbox notebooks alike."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.app.canaries import apply_rule
from toolkit.app.environments import environment_tags, interpreter
from toolkit.app.policy_promotions import check_in_force
from toolkit.app.rollouts import SHADOW_TAG, choose_version, shadow_request
from toolkit.app.run_values import check_files, check_values
from toolkit.app.workbench import Workbench
from toolkit.document import Notebook, check_parameters, default_values, parse_value
from toolkit.errors import Conflict, NotFound, ToolkitError, UsageError
from toolkit.execution import QUEUED_TAG, Progress, RunPlan, RunReport
from toolkit.values import Environment, JobRef, RunKind, RunRecord, RunState, new_id

__all__ = [
    "Request",
    "plan_notebook",
    "plan_version",
    "read_parameters",
    "run_reference",
]

_MIRRORED = "mirrored"
"""Tag of a run of whose end MLflow was told (``toolkit.execution``): it is to be told of the next."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a person or a schedule asks to run.

    Attributes:
        reference: ``job@selector`` or the path of a notebook.
        parameters: ``name=value`` texts, or values if they are not strings of a command line.
        run_id: Idempotency key.
        timeout_s: Seconds for the whole run; default: the job's own.  Policy may allow less.
        tags: Facts to record (schedule, tick …).
        leave: Whether the process ends when the run waits for people only.
        later: See :class:`toolkit.execution.RunPlan`.
        again: Whether a run that failed in a cell is tried again; without it, it is told again.
        user: Whose run it is; ``None``: the workspace's user.  Believed, as that one is.
    """

    reference: str
    parameters: Mapping[str, Any]
    run_id: str | None = None
    timeout_s: float | None = None
    tags: Mapping[str, str] | None = None
    leave: bool = False
    later: bool = False
    user: str | None = None
    again: bool = False

    @property
    def is_notebook(self) -> bool:
        """Whether the reference is a file."""
        return self.reference.endswith(".ipynb")


def read_parameters(pairs: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Read ``-p name=value`` pairs by a JSON Schema; every fault is named.

    Raises:
        UsageError: A pair has no ``=``, a name is given twice, or a value does not fit its type.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            faults.append(f"{pair!r} is not NAME=VALUE")
            continue
        if name in values:
            faults.append(f"{name} is given twice")
            continue
        declared = schema.get("properties", {}).get(name)
        try:
            values[name] = text if declared is None else parse_value(text, declared)
        except UsageError as error:
            faults.append(f"{name}: {error.message}")
    if faults:
        raise UsageError("; ".join(faults), next_step="write -p limit=20 -p only='[\"httpx\"]'")
    return values


def plan_version(bench: Workbench, request: Request, pairs: list[str] | None) -> RunPlan:
    """Verify a registered version and plan its run from the verified bytes.

    A run that began before goes on with the version that it began with, wherever an alias points
    by now, and with its own parameters where none are given.

    Raises:
        Conflict: The run id stands for another job.
        ConfigurationError, ApprovalPending: See :func:`toolkit.app.rollouts.choose_version`.
        InvalidFile, NotFound, IntegrityError, UsageError: See the classes; the latter also for parameters that
            hold a secret, since they are recorded.
    """
    known = _known(bench, request.run_id)
    run_id = request.run_id or new_id("run")
    asked = _begun_with(known, JobRef.parse(request.reference))
    version, chosen = choose_version(bench, asked, run_id, known)
    files = bench.registry.load(version)
    manifest = version.manifest
    schema = manifest.parameters
    given = dict(request.parameters) if pairs is None else read_parameters(pairs, schema)
    parameters = _same_parameters(known, schema, given)
    if known is None:
        check_values(parameters, bench.workspace.registry)
    bundle = bench.governance.bundle(Environment.PRODUCTION)
    check_files(bench.governance)
    check_in_force(bench.registry, bundle)
    limits = bench.jobs.now().of(version.name)
    timeout = _shortest(request.timeout_s or limits.run_s, bundle.budget.seconds)
    tags = {
        "bundle_digest": version.bundle_digest,
        "git_commit": manifest.git_commit or "",
        **environment_tags(bench, manifest, files),
        **chosen,
        **(request.tags or {}),
    }
    run = RunRecord(
        run_id=run_id,
        kind=RunKind.RUN,
        environment=Environment.PRODUCTION,
        user=request.user or bench.workspace.user,
        team=bench.workspace.settings.team or None,
        job=version.name,
        version=version.number,
        notebook=f"{version.name}@{version.number}/notebook.ipynb",
        parameters={**default_values(schema), **parameters},
        results_expected=manifest.results,
        policy_digest=bundle.digest,
        tags={name: value for name, value in tags.items() if value},
    )
    return RunPlan(
        run,
        files["notebook.ipynb"],
        parameters,
        timeout_s=timeout,
        cell_timeout_s=limits.cell_s,
        hold_s=bundle.approvals.hold_s,
        leave=request.leave,
        later=request.later,
        python=interpreter(bench, files),
    )


def _shortest(asked: float | None, allowed: float | None) -> float | None:
    """Return how long a run may take: nobody may ask for more than policy allows."""
    return min((each for each in (asked, allowed) if each is not None), default=None)


def _begun_with(known: RunRecord | None, asked: JobRef) -> JobRef:
    """Return the version to run: of a run that began before, the one that it began with."""
    if known is None:
        return asked
    if known.job != asked.name:
        raise Conflict(
            f"the run {known.run_id} is one of {known.job or known.notebook or known.kind}, "
            f"not of {asked.name}",
            where=known.run_id,
            next_step="choose another run id, or leave it out",
        )
    return JobRef.parse(f"{known.job}@{known.version}")


def _same_parameters(
    known: RunRecord | None, schema: dict[str, Any], given: dict[str, Any]
) -> dict[str, Any]:
    """Return the checked parameters; a run that began before keeps its own."""
    if known is not None and not given:
        given = dict(known.parameters)
    parameters = check_parameters(schema, given)
    if known is not None and {**default_values(schema), **parameters} != known.parameters:
        raise UsageError(
            f"the run {known.run_id} began with other parameters",
            where=known.run_id,
            next_step="give the same parameters, or none; or choose another run id",
        )
    return parameters


def _known(bench: Workbench, run_id: str | None) -> RunRecord | None:
    """Return a run of a registered version that began before."""
    if run_id is None:
        return None
    try:
        found = bench.ledger.get_run(run_id)
    except NotFound:
        return None
    return found if found.version is not None else None


def plan_notebook(bench: Workbench, request: Request, pairs: list[str] | None) -> RunPlan:
    """Plan a sandbox run of a notebook that is not promoted.

    Raises:
        InvalidFile, UsageError: The notebook, a parameter, or a file of the registry has faults.
    """
    path = Path(request.reference)
    notebook = Notebook.read(path)
    given = dict(request.parameters) if pairs is None else read_parameters(pairs, notebook.schema)
    parameters = check_parameters(notebook.schema, given)
    check_values(parameters, bench.workspace.registry)
    bundle = bench.governance.bundle(Environment.SANDBOX)
    check_files(bench.governance)
    tags = {"git_commit": bench.git_commit or "", **(request.tags or {})}
    run = RunRecord(
        run_id=request.run_id or new_id("trial"),
        kind=RunKind.TRIAL,
        environment=Environment.SANDBOX,
        user=bench.workspace.user,
        team=bench.workspace.settings.team or None,
        notebook=bench.relative(path),
        parameters={**default_values(notebook.schema), **parameters},
        results_expected=notebook.results,
        policy_digest=bundle.digest,
        tags={name: value for name, value in tags.items() if value},
    )
    timeout = _shortest(request.timeout_s, bundle.budget.seconds)
    return RunPlan(run, path.read_bytes(), parameters, cwd=path.resolve().parent, timeout_s=timeout)


def run_reference(
    bench: Workbench,
    request: Request,
    *,
    pairs: list[str] | None = None,
    on_progress: Progress | None = None,
) -> RunReport:
    """Run what a reference names, in this process, and return how it ended."""
    plan = (plan_notebook if request.is_notebook else plan_version)(bench, request, pairs)
    if request.run_id is not None and not request.is_notebook:
        _complete(bench, plan, again=request.again)
    report = bench.runner.run(plan, on_progress=on_progress)
    if not request.is_notebook and report.run.state.terminal:
        _roll_out(bench, request, report.run)
    return report


def _complete(bench: Workbench, plan: RunPlan, *, again: bool) -> None:
    """Add to the record of a run what is known of it only now; whose it is is the queue's tag.

    One that failed in a cell and is tried again has begun again, and waits for its process.

    One that was refused before it began has no version yet.  One that ended under the queue and is
    started again by hand is the queue's no more, and the other way round.
    """
    wanted = plan.run
    try:
        known = bench.ledger.get_run(wanted.run_id)
    except NotFound:
        return
    if known.job != wanted.job:
        raise Conflict(
            f"the run {known.run_id} is one of {known.job or known.notebook or known.kind}",
            where=known.run_id,
            next_step="choose another run id, or leave it out",
        )
    if again and known.state.terminal and known.repeatable and not known.resumable:
        left = {name: text for name, text in known.tags.items() if name != _MIRRORED}
        begun: dict[str, Any] = {"runner": None, "token_digest": None, "ended_us": None}
        begun |= {"cause": None, "message": None, "tags": left}
        bench.ledger.take(known, state=RunState.RUNNING, **begun)
        return
    if not (known.state.terminal and known.resumable):
        return
    tags = {name: text for name, text in known.tags.items() if name != QUEUED_TAG}
    tags |= {QUEUED_TAG: "yes"} if QUEUED_TAG in wanted.tags else {}
    fields: dict[str, Any] = {} if tags == known.tags else {"tags": tags}
    if known.version is None:
        fields = {
            "tags": {**wanted.tags, **tags},
            "version": wanted.version,
            "notebook": wanted.notebook,
            "parameters": wanted.parameters,
            "results_expected": wanted.results_expected,
            "policy_digest": wanted.policy_digest,
        }
    if fields:
        bench.ledger.take(known, **fields)


def _roll_out(bench: Workbench, request: Request, run: RunRecord) -> None:
    """Run the shadow of a run that has ended, and let the rule of a canary decide.

    Neither changes what the run itself came to: a fault here is a line in the log.
    """
    reference = JobRef.parse(request.reference)
    alias = reference.selector or "production"
    if reference.version is not None or SHADOW_TAG in run.tags:
        return
    try:
        shadow = shadow_request(bench, run, alias)
        if shadow is not None:
            values, tags = shadow
            asked = Request(
                f"{reference.name}@{alias}.shadow",
                values,
                run_id=f"{run.run_id}-shadow",
                timeout_s=request.timeout_s,
                tags=tags,
                leave=True,
                user=run.user,
            )
            bench.runner.run(plan_version(bench, asked, None))
        apply_rule(bench, reference.name, alias)
    except ToolkitError as error:
        _log.warning("%s: what runs beside it was left out: %s", run.run_id, error)
