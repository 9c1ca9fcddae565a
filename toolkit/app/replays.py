"""Replays: a recorded run is executed again from its journal, for an audit or before an upgrade.

The kernel is fresh, its gateway answers from the journal and refuses everything else, so nothing
reaches the outside through it; today's policy, budgets, routes and catalogs are not asked.

Known limits
------------
* The kernel has no network of its own (L2) unless the caller does without; code that goes around the
  gateway is then not held back.
* A read of a data source is recorded by number and digest of its rows, never with the rows: there
  the journal ends, and what comes after it is not compared.
* Secrets and personal data are cut out of arguments as today's settings say.  Where these have
  changed since, a call may not find its record.
* A replay of a notebook that is not promoted takes the file as it is now.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.app.environments import interpreter
from toolkit.app.workbench import Workbench
from toolkit.client import ensure_gateway
from toolkit.document import Notebook, check_parameters
from toolkit.errors import ConfigurationError, IntegrityError, ToolkitError, UsageError
from toolkit.values import (
    Cause,
    IsolationLevel,
    JobRef,
    RunKind,
    RunRecord,
    RunState,
    digest_bytes,
    new_id,
)

if TYPE_CHECKING:
    from toolkit.kernels import KernelPlan

__all__ = ["Forecast", "Replay", "Terms", "forecast", "replay"]

_KINDS = (RunKind.RUN, RunKind.TRIAL)
_MOST_WAITING = 10_000
_TIMEOUT_S = 3_600.0


@dataclass(frozen=True)
class Replay:
    """What a replay found.

    Attributes:
        source: The run that was replayed.
        run_id: The replay's own run.
        what: The notebook that was executed: ``job@version`` or a path.
        recorded, asked: Calls in the journal, and how many of them were asked for again.
        results, results_equal: Results in the journal; whether each came out again as recorded.
        first: The first difference (``toolkit.gateway``: ``Divergence.to_json``).
        ended: Where the journal ended before the notebook did, why: a call without an answer, or
            the end of a run that was cut short.
        state, cause, message: How the execution ended.
        seconds: Wall time of the execution.
        differs: What is not as recorded, ``None`` where everything is.
    """

    source: RunRecord
    run_id: str
    what: str
    recorded: int
    asked: int
    results: int
    results_equal: bool
    first: dict[str, Any] | None
    ended: str | None
    state: RunState
    cause: Cause | None
    message: str | None
    seconds: float
    differs: str | None = None

    @property
    def same(self) -> bool:
        """Whether the notebook asked for, and gave, what is recorded."""
        return self.differs is None


@dataclass(frozen=True)
class Forecast:
    """What an upgrade would mean for one waiting run.

    Attributes:
        run: The run that waits.
        safe: Whether the new version asks for all that is recorded, in so far as it got.
        why: What differs, or why it cannot be told.
    """

    run: RunRecord
    safe: bool
    why: str | None = None

    @property
    def verdict(self) -> str:
        """``safe``, or that it finishes on the version that it began with."""
        return "safe" if self.safe else "finishes on the old version"


@dataclass(frozen=True)
class _Script:
    """What is executed."""

    what: str
    job: str | None
    version: int | None
    notebook: bytes
    parameters: dict[str, Any]
    python: Callable[[], Path] | None = None


@dataclass(frozen=True)
class Terms:
    """How replays are executed.

    Attributes:
        isolated: Whether the kernel must have no network: the machine has to reach L2.
        timeout_s: Seconds for one replay; default: what its run would have by policy and the job's
            settings, else an hour.
    """

    isolated: bool = True
    timeout_s: float | None = None


_TERMS = Terms()


def replay(
    bench: Workbench, run_id: str, *, with_: str | None = None, terms: Terms = _TERMS
) -> Replay:
    """Execute a recorded run again from its journal.

    Args:
        bench: The workspace.
        run_id: The run; it must have ended, or wait.
        with_: ``job@version`` whose notebook is executed instead of the run's own.
        terms: Isolation and time.

    Raises:
        ConfigurationError: The machine cannot keep a kernel from the network, or not as policy asks.
        IntegrityError: The run's chain is not what was written; nothing is executed.
        NotFound, UsageError, InfrastructureError: See the classes.
    """
    source = bench.ledger.get_run(run_id)
    _check_kind(source)
    if faults := bench.ledger.verify(run_id):
        raise IntegrityError(
            f"the record of {run_id} has {len(faults)} faults, the first: {faults[0]}",
            where=run_id,
            next_step=f"see all of them: toolkit ledger verify {run_id}",
        )
    script = _registered(bench, source, with_) if source.job or with_ else _file(bench, source)
    return _execute(bench, source, script, terms)


def forecast(bench: Workbench, with_: str, *, terms: Terms = _TERMS) -> list[Forecast]:
    """Return what ``with_`` (``job@version``) would mean for each waiting run of its job."""
    reference = JobRef.parse(with_)
    waiting = bench.ledger.runs(job=reference.name, state=RunState.WAITING, limit=_MOST_WAITING)
    return [_foresee(bench, run, with_, terms) for run in waiting if run.kind is RunKind.RUN]


def _foresee(bench: Workbench, run: RunRecord, with_: str, terms: Terms) -> Forecast:
    try:
        found = replay(bench, run.run_id, with_=with_, terms=terms)
    except (UsageError, IntegrityError) as error:
        return Forecast(run, safe=False, why=error.message)
    return Forecast(run, safe=found.same, why=found.differs)


def _check_kind(source: RunRecord) -> None:
    if source.kind not in _KINDS:
        raise UsageError(
            f"{source.run_id} is a {source.kind}: only runs of jobs and notebooks can be replayed",
            next_step="list runs: toolkit runs",
        )
    if source.state in (RunState.QUEUED, RunState.RUNNING):
        raise UsageError(
            f"{source.run_id} is {source.state}, and its journal still grows",
            next_step=f"wait for its end: toolkit show {source.run_id}",
        )


def _registered(bench: Workbench, source: RunRecord, with_: str | None) -> _Script:
    version = bench.registry.resolve(JobRef.parse(with_ or f"{source.job}@{source.version}"))
    if with_ is not None and source.job not in (None, version.name):
        raise UsageError(
            f"{source.run_id} is a run of {source.job}, not of {version.name}",
            next_step=f"name a version of it: --with {source.job}@production",
        )
    files = bench.registry.load(version)
    return _Script(
        f"{version.name}@{version.number}",
        version.name,
        version.number,
        files["notebook.ipynb"],
        check_parameters(version.manifest.parameters, source.parameters),
        interpreter(bench, files),
    )


def _file(bench: Workbench, source: RunRecord) -> _Script:
    path = bench.workspace.root / str(source.notebook)
    notebook = Notebook.read(path)
    parameters = check_parameters(notebook.schema, source.parameters)
    return _Script(str(source.notebook), None, None, path.read_bytes(), parameters)


def _kernel(bench: Workbench, run: RunRecord) -> KernelPlan:
    """Return how a kernel without a network is started."""
    from toolkit.app.isolating import kernel_plan

    bundle = bench.governance.bundle(run.environment)
    try:
        return kernel_plan(bench.workspace, bundle, IsolationLevel.L2)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"a replay has no network, which takes isolation L2: {error.message}",
            where="isolation",
            next_step=f"{error.next_step}; or, where the notebook's own connections do no harm:"
            " --network-not-isolated",
        ) from error


def _limit_s(bench: Workbench, run: RunRecord, terms: Terms) -> float:
    if terms.timeout_s is not None:
        return terms.timeout_s
    own = bench.jobs.now().of(run.job).run_s if run.job else None
    known = (own, bench.governance.bundle(run.environment).budget.seconds)
    return min((float(each) for each in known if each is not None), default=_TIMEOUT_S)


def _execute(bench: Workbench, source: RunRecord, script: _Script, terms: Terms) -> Replay:
    from toolkit.execution import Execution, ask_journal, execute, myself, place

    token = secrets.token_urlsafe(32)
    socket = ensure_gateway(bench.workspace.root)
    run = bench.ledger.create_run(
        RunRecord(
            run_id=new_id("replay"),
            kind=RunKind.REPLAY,
            environment=source.environment,
            user=bench.workspace.user,
            state=RunState.RUNNING,
            job=script.job,
            version=script.version,
            notebook=source.notebook,
            parameters=script.parameters,
            source_run_id=source.run_id,
            token_digest=digest_bytes(token.encode()),
            runner=myself(),
        )
    )
    folder = bench.workspace.runs / run.run_id
    (folder / "work").mkdir(mode=0o700, parents=True)
    kernels = partial(_kernel, bench) if terms.isolated else bench.runner.kernels
    kernel, run = place(kernels, bench.ledger, run, bench.runner.clock)
    try:
        ending = execute(
            Execution(
                run=run,
                ledger=bench.ledger.identity,
                notebook=script.notebook,
                parameters=script.parameters,
                folder=folder,
                cwd=folder / "work",
                gateway_socket=Path(socket),
                token=token,
                timeout_s=_limit_s(bench, source, terms),
                kernel=kernel,
                python=Path(sys.executable) if script.python is None else script.python(),
            )
        )
        told = ask_journal(socket, token)
    except Exception as error:
        said = error.message if isinstance(error, ToolkitError) else type(error).__name__
        bench.ledger.update_run(
            run.run_id, state=RunState.FAILED, cause=Cause.INFRASTRUCTURE, message=said
        )
        raise
    results = len(bench.ledger.results(source.run_id))
    found = _judge(source, (run.run_id, script.what, results), ending, told)
    bench.ledger.update_run(
        run.run_id,
        state=RunState.SUCCEEDED if found.same else RunState.FAILED,
        cause=None if found.same else Cause.DIVERGENCE,
        message=found.differs or found.ended,
    )
    return found


def _judge(
    source: RunRecord, known: tuple[str, str, int], ending: Any, told: dict[str, Any]
) -> Replay:
    run_id, what, results = known
    first = told["first"]
    whole = source.state is RunState.SUCCEEDED
    ended = None
    if told["at_end"]:
        ended = ending.message or "a call has no recorded answer"
    elif told["beyond"] and not whole:
        ended = f"{source.run_id} was {source.state} here, and recorded nothing more"
        first = None
    elif not whole and first is None and source.state is not ending.state:
        ended = f"{source.run_id} was {source.state}; the replay came to {ending.state}"
    differs = None
    if first is not None:
        differs = str(first["message"])
    elif ended is None and ending.state is not source.state:
        differs = f"it ended {ending.state}, and was {source.state}: {ending.message or 'no fault'}"
    wrong = first is not None and first["kind"] == "result"
    return Replay(
        source=source,
        run_id=run_id,
        what=what,
        recorded=told["recorded"],
        asked=told["asked"],
        results=results,
        results_equal=not told["results_left"] and not wrong,
        first=first,
        ended=ended,
        state=ending.state,
        cause=ending.cause,
        message=ending.message,
        seconds=ending.seconds,
        differs=differs,
    )
