"""Where a run's kernel may live: chosen before it starts, and recorded on the run."""

from __future__ import annotations

from collections.abc import Callable

from toolkit.errors import ConfigurationError
from toolkit.kernels import KernelPlan
from toolkit.ledger import Ledger
from toolkit.values import Cause, Clock, RunRecord, RunState

__all__ = ["ISOLATION_TAG", "Kernels", "place"]

ISOLATION_TAG = "isolation"
"""Tag of a run: the level at which its kernel was started, as probed (``L2``)."""

Kernels = Callable[[RunRecord], KernelPlan]
"""Says how a run's kernel is started; raises ConfigurationError where the machine cannot."""


def place(
    kernels: Kernels, ledger: Ledger, run: RunRecord, clock: Clock
) -> tuple[KernelPlan, RunRecord]:
    """Choose how the kernel is started, and record the level.

    Raises:
        ConfigurationError: The machine does not reach what policy asks for.  The run has ended as
            ``denied``, with the cause ``policy``.
    """
    try:
        plan = kernels(run)
    except ConfigurationError as error:
        ledger.update_run(
            run.run_id,
            state=RunState.DENIED,
            cause=Cause.POLICY,
            message=error.message,
            ended_us=clock.now_us(),
        )
        raise
    tags = {**run.tags, ISOLATION_TAG: plan.level.name}
    return plan, run if tags == run.tags else ledger.update_run(run.run_id, tags=tags)
