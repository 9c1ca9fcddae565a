"""What a run is and how it may end."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

__all__ = [
    "FAILED_FROM",
    "RESUMED",
    "Cause",
    "Environment",
    "RunKind",
    "RunRecord",
    "RunState",
    "repeatable",
    "resumable",
]

RESUMED = "resumed_after"
"""Tag of a run that was started again: the ledger's number of its last call before that."""


FAILED_FROM = "failed_from_us"
"""Tag of a run that infrastructure ended: when the cell that failed began, microseconds since the epoch."""


class Environment(StrEnum):
    """Which policies apply."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


class RunKind(StrEnum):
    """Why a kernel talks to the gateway."""

    SESSION = "session"  # a person in JupyterLab
    TRIAL = "trial"  # `toolkit run notebook.ipynb`, nothing promoted
    REPRODUCTION = "reproduction"  # promotion: nbval against the sandbox journal
    REHEARSAL = "rehearsal"  # promotion: under the production policy
    EVALUATION = "evaluation"  # cases of an evaluation set
    RUN = "run"  # a registered version
    REPLAY = "replay"  # an audit: answered from the journal of another run, and from nothing else


class RunState(StrEnum):
    """The closed set of states; every run ends in exactly one terminal state."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    KILLED = "killed"
    CANCELLED = "cancelled"
    DENIED = "denied"
    LOST = "lost"
    SKIPPED = "skipped"

    @property
    def terminal(self) -> bool:
        """Whether nothing follows this state."""
        return self not in (RunState.QUEUED, RunState.RUNNING, RunState.WAITING)


class Cause(StrEnum):
    """Why a run ended as it did."""

    CELL_ERROR = "cell_error"
    CELL_DOES_NOT_PARSE = "cell_does_not_parse"
    KERNEL_DIED = "kernel_died"
    KERNEL_START = "kernel_start"
    OUT_OF_MEMORY = "out_of_memory"
    EXIT_CALLED = "exit_called"
    SHELL_FAILED = "shell_failed"
    POLICY = "policy"
    BUDGET = "budget"
    OUTPUT_LIMIT = "output_limit"
    RUN_TIMEOUT = "run_timeout"
    CELL_TIMEOUT = "cell_timeout"
    RESULTS_MISSING = "results_missing"
    RUNNER_DIED = "runner_died"
    SIGNAL = "signal"
    REQUESTED = "requested"
    INFRASTRUCTURE = "infrastructure"
    DIVERGENCE = "divergence"
    REFUSED = "refused"


def resumable(state: RunState, cause: Cause | None) -> bool:
    """Whether a run that has ended may go on from its journal, under the same id.

    It may where the world ended it and not the notebook, a policy or a person: killed, lost, out of
    time, failed by infrastructure or before its kernel started, or cancelled by a signal (a machine
    that shuts down).  One that was refused before it began has done nothing yet: it may begin once
    what refused it has changed.
    """
    if state in (RunState.KILLED, RunState.LOST, RunState.TIMED_OUT):
        return True
    return (state, cause) in (
        (RunState.FAILED, Cause.INFRASTRUCTURE),
        (RunState.FAILED, Cause.KERNEL_START),
        (RunState.FAILED, Cause.REFUSED),
        (RunState.CANCELLED, Cause.SIGNAL),
    )


def repeatable(state: RunState, cause: Cause | None) -> bool:
    """Whether a run that has ended may run again where somebody asks for just that.

    A cell's error is the notebook's own end: it is told again, unless the job's settings say that
    such runs are tried again.
    """
    return resumable(state, cause) or (state, cause) == (RunState.FAILED, Cause.CELL_ERROR)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One execution, as the ledger keeps it.

    Attributes:
        run_id: ``run-…``, ``session-…``; an idempotency key.
        kind: Why it runs.
        environment: Which policies apply.
        user: Who started it.
        state: See :class:`RunState`; ``cause`` and ``message`` explain a terminal state.
        job, version: Set for registered versions (and for the job a promotion is about).
        notebook: Workspace-relative path of the notebook.
        parameters: JSON values by parameter name.
        results_expected: Names that the notebook declares with ``toolkit.result``.
        source_run_id: The run whose recorded calls answer this one (reproduction, replay).
        parent_run_id: The run that started this one.
        policy_digest: The policy bundle in force at the start.
        token_digest: Digest of the bearer token that a kernel shows to the gateway.
        tags: Free facts for MLflow (git commit, schedule, attempt …).
        created_us, started_us, ended_us: Microseconds since the epoch.
        mlflow_run_id: Filled when the run is mirrored.
        runner: ``host:pid:start`` of the process that executes it.
    """

    run_id: str
    kind: RunKind
    environment: Environment
    user: str
    state: RunState = RunState.QUEUED
    cause: Cause | None = None
    message: str | None = None
    team: str | None = None
    job: str | None = None
    version: int | None = None
    notebook: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    results_expected: tuple[str, ...] = ()
    source_run_id: str | None = None
    parent_run_id: str | None = None
    policy_digest: str | None = None
    token_digest: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    created_us: int = 0
    started_us: int | None = None
    ended_us: int | None = None
    mlflow_run_id: str | None = None
    runner: str | None = None

    @property
    def resumable(self) -> bool:
        """See :func:`resumable`."""
        return resumable(self.state, self.cause)

    @property
    def repeatable(self) -> bool:
        """See :func:`repeatable`."""
        return repeatable(self.state, self.cause)
