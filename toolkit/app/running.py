"""From a reference to a finished run: registered versions and sandbox notebooks alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.app.workbench import Workbench
from toolkit.document import Notebook, check_parameters, default_values, parse_value
from toolkit.errors import UsageError
from toolkit.execution import Progress, RunPlan, RunReport
from toolkit.values import Environment, JobRef, RunKind, RunRecord, new_id

__all__ = ["Request", "plan_notebook", "plan_version", "read_parameters", "run_reference"]


@dataclass(frozen=True)
class Request:
    """What a person or a schedule asks to run.

    Attributes:
        reference: ``job@selector`` or the path of a notebook.
        parameters: ``name=value`` texts, or values if they are not strings of a command line.
        run_id: Idempotency key.
        timeout_s: Seconds for the whole run; default: the version's own.
        tags: Facts to record (schedule, tick …).
    """

    reference: str
    parameters: Mapping[str, Any]
    run_id: str | None = None
    timeout_s: float | None = None
    tags: Mapping[str, str] | None = None

    @property
    def is_notebook(self) -> bool:
        """Whether the reference is a file."""
        return self.reference.endswith(".ipynb")


def read_parameters(pairs: list[str], schema: dict[str, Any]) -> dict[str, Any]:
    """Read ``-p name=value`` pairs by a JSON Schema; every fault is named.

    Raises:
        UsageError: A pair has no ``=``, or a value does not fit its type.
    """
    values: dict[str, Any] = {}
    faults: list[str] = []
    for pair in pairs:
        name, separator, text = pair.partition("=")
        if not separator:
            faults.append(f"{pair!r} is not NAME=VALUE")
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

    Raises:
        NotFound, IntegrityError, UsageError: See the classes.
    """
    version = bench.registry.resolve(JobRef.parse(request.reference))
    files = bench.registry.load(version)
    manifest = version.manifest
    schema = manifest.parameters
    given = dict(request.parameters) if pairs is None else read_parameters(pairs, schema)
    parameters = check_parameters(schema, given)
    bundle = bench.governance.bundle(Environment.PRODUCTION)
    timeout = request.timeout_s or bundle.budget.seconds
    tags = {
        "bundle_digest": version.bundle_digest,
        "git_commit": manifest.git_commit or "",
        **(request.tags or {}),
    }
    run = RunRecord(
        run_id=request.run_id or new_id("run"),
        kind=RunKind.RUN,
        environment=Environment.PRODUCTION,
        user=bench.workspace.user,
        team=bench.workspace.settings.team or None,
        job=version.name,
        version=version.number,
        notebook=f"{version.name}@{version.number}/notebook.ipynb",
        parameters={**default_values(schema), **parameters},
        results_expected=manifest.results,
        policy_digest=bundle.digest,
        tags={name: value for name, value in tags.items() if value},
    )
    return RunPlan(run, files["notebook.ipynb"], parameters, timeout_s=timeout)


def plan_notebook(bench: Workbench, request: Request, pairs: list[str] | None) -> RunPlan:
    """Plan a sandbox run of a notebook that is not promoted.

    Raises:
        InvalidFile, UsageError: The notebook or a parameter has faults.
    """
    path = Path(request.reference)
    notebook = Notebook.read(path)
    given = dict(request.parameters) if pairs is None else read_parameters(pairs, notebook.schema)
    parameters = check_parameters(notebook.schema, given)
    bundle = bench.governance.bundle(Environment.SANDBOX)
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
    timeout = request.timeout_s or bundle.budget.seconds
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
    return bench.runner.run(plan, on_progress=on_progress)
