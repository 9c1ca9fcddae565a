"""Lock: what the notebook declares becomes a locked environment, built and verified here."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.document import Notebook
from toolkit.environments import Environments, Lock, WorkspaceEnvironment, lock_dependencies
from toolkit.errors import ConfigurationError, IntegrityError, NotebookRejected, ToolkitError
from toolkit.promotion.stages import Stage, finding

__all__ = ["LOCK_FILE", "Surroundings", "lock_environment"]

LOCK_FILE = "requirements.lock"


@dataclass(frozen=True)
class Surroundings:
    """What a candidate runs in, from the rehearsal to its last run.

    Attributes:
        facts: What the manifest records about it.
        lock: The locked environment; ``None``: the workspace's own, which is recorded only.
        python: Returns its interpreter, building it if need be; ``None``: the runner's own.
        distributions: ``name==version`` of the workspace's own environment.
    """

    facts: dict[str, Any]
    lock: Lock | None = None
    python: Callable[[], Path] | None = None
    distributions: tuple[str, ...] = field(default=(), repr=False)

    @property
    def files(self) -> dict[str, bytes]:
        """What is sealed with the version."""
        return {} if self.lock is None else {LOCK_FILE: self.lock.to_bytes()}


def lock_environment(
    notebook: Notebook, environments: Environments
) -> tuple[Stage | None, Surroundings | None]:
    """Lock and build what a notebook declares; without a declaration there is no such stage.

    Raises:
        InfrastructureError, IntegrityError: Nothing is said about the notebook.
    """
    declared = notebook.dependencies
    if not declared.declared:
        own = WorkspaceEnvironment.current()
        return None, Surroundings(own.to_json(), distributions=own.distributions)
    started = time.monotonic()
    try:
        lock = lock_dependencies(declared.texts, declared.requires_python, cwd=environments.cwd)
        built = environments.ensure(lock)
    except IntegrityError:
        raise
    except NotebookRejected as error:
        return _refused("lock.unsatisfied", error, time.monotonic() - started), None
    except ConfigurationError as error:
        return _refused("lock.unfit", error, time.monotonic() - started), None
    facts = {
        "kind": "locked",
        "lock": lock.digest,
        "python": lock.python,
        "platform": lock.platform,
        "packages": len(lock.packages),
    }
    stage = Stage(
        "lock",
        passed=True,
        summary=f"{len(lock.packages)} packages locked with hashes for Python {lock.python}",
        seconds=time.monotonic() - started,
        facts={**facts, "environment_digest": built.digest, "built": built.fresh},
    )
    return stage, Surroundings(facts, lock, lambda: environments.ensure(lock).python)


def _refused(rule: str, error: ToolkitError, seconds: float) -> Stage:
    fault = finding(
        rule,
        error.message,
        fix=error.next_step or "change the declared dependencies",
        why="the job runs with what was locked and rehearsed, and with nothing else",
    )
    return Stage("lock", passed=False, summary=error.message, findings=(fault,), seconds=seconds)
