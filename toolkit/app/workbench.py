"""Everything of one workspace, built on first use: what commands and the promotion work with."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.client import ensure_gateway
from toolkit.settings import Workspace, open_workspace

if TYPE_CHECKING:
    from toolkit.app.approvals import Inbox
    from toolkit.app.pages import Pages
    from toolkit.app.promotions import Promotions
    from toolkit.environments import Environments
    from toolkit.execution import Runner
    from toolkit.gateway import Governance
    from toolkit.kernels import KernelPlan
    from toolkit.ledger import Approval, Ledger
    from toolkit.promotion import Promoter
    from toolkit.registry import Registry
    from toolkit.scheduling import Engine, JobsFile
    from toolkit.tracing import Shipper, Tracking
    from toolkit.values import RunRecord

__all__ = ["Workbench", "open_workbench"]


@dataclass(frozen=True)
class Workbench:
    """The rooms of one workspace, wired.

    Attributes:
        workspace: Where it is and how it is configured.
    """

    workspace: Workspace

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger."""
        from toolkit.ledger import Ledger

        return Ledger.open(self.workspace.database_url, heads=self.workspace.ledger_heads)

    @cached_property
    def registry(self) -> Registry:
        """The registry."""
        from toolkit.app.trusting import open_registry

        return open_registry(self.workspace)

    @cached_property
    def governance(self) -> Governance:
        """Policies and routes."""
        from toolkit.gateway import Governance

        return Governance(self.workspace.registry, self.workspace.settings.default_route or None)

    @cached_property
    def tracking(self) -> Tracking:
        """MLflow runs and models."""
        from toolkit.tracing import Tracking

        return Tracking(
            self.workspace.mlflow_uri,
            artifacts=self.workspace.artifacts,
            experiment=self.workspace.settings.experiment,
        )

    @cached_property
    def pages(self) -> Pages:
        """Links to MLflow's pages."""
        from toolkit.app.pages import Pages

        return Pages(self.workspace)

    @cached_property
    def shipper(self) -> Shipper:
        """Calls to MLflow."""
        from toolkit.tracing import TURN, Shipper, Turn

        return Shipper(
            self.ledger,
            self.workspace.mlflow_uri,
            experiment=self.workspace.settings.experiment,
            store=self.tracking.store,
            turn=Turn(self.workspace.state / TURN),
        )

    @cached_property
    def runner(self) -> Runner:
        """Executes runs in this process."""
        from toolkit.execution import Runner

        root = self.workspace.root
        return Runner(
            ledger=self.ledger,
            tracking=self.tracking,
            shipper=self.shipper,
            gateway=lambda: ensure_gateway(root),
            runs=self.workspace.runs,
            lapse=self._lapse,
            kernels=self._kernel,
        )

    def _kernel(self, run: RunRecord) -> KernelPlan:
        from toolkit.app.isolating import kernel_plan

        return kernel_plan(self.workspace, self.governance.bundle(run.environment))

    def _lapse(self, approval: Approval) -> Approval:
        from toolkit.app.approvals import make_desk

        return make_desk(self.ledger, self.governance).lapse(approval)

    @cached_property
    def environments(self) -> Environments:
        """Locked environments of this machine."""
        from toolkit.environments import Environments

        return Environments(self.workspace.state / "environments", self.workspace.root)

    @cached_property
    def jobs(self) -> JobsFile:
        """The settings of jobs."""
        from toolkit.scheduling import JobsFile

        return JobsFile(self.workspace.registry / "jobs.yaml")

    @cached_property
    def engine(self) -> Engine:
        """The queue and the schedules."""
        from toolkit.scheduling import Engine

        return Engine(self.workspace.engine_url, root=self.workspace.root, jobs=self.jobs.now)

    @cached_property
    def promoter(self) -> Promoter:
        """Takes notebooks to production."""
        from toolkit.app.isolating import reached_here
        from toolkit.app.simulations import simulate_job
        from toolkit.app.standing import Wish
        from toolkit.promotion import Promoter, Wanted

        def release(wanted: Wanted, job: str, version: int) -> str | None:
            wish = Wish(wanted.alias, wanted.kind, wanted.share)
            standing = self.promotions.release(job, version, wish)
            return None if standing is None or standing.moved else standing.sentence

        def admit(wanted: Wanted, job: str, judged: str | None) -> None:
            wish = Wish(wanted.alias, wanted.kind, wanted.share)
            self.promotions.admit(job, wish, judged=judged)

        return Promoter(
            root=self.workspace.root,
            registry=self.registry,
            governance=self.governance,
            ledger=self.ledger,
            runner=self.runner,
            tracking=self.tracking,
            links=self.pages,
            gateway=lambda: ensure_gateway(self.workspace.root),
            user=self.workspace.user,
            environments=self.environments,
            release=release,
            admit=admit,
            isolation=lambda: reached_here().level,
            decide_again=lambda *asked: simulate_job(self, *asked),
        )

    @cached_property
    def inbox(self) -> Inbox:
        """Requests that wait for people, and the stop switch."""
        from toolkit.app.approvals import open_inbox

        return open_inbox(self)

    @cached_property
    def promotions(self) -> Promotions:
        """Versions that wait for people, and what lets them in."""
        from toolkit.app.promotions import open_promotions

        return open_promotions(self)

    @cached_property
    def git_commit(self) -> str | None:
        """The workspace's commit, with ``+dirty`` when files differ from it; ``None`` without git."""
        commit = self._git("rev-parse", "HEAD")
        if not commit:
            return None
        return f"{commit}+dirty" if self._git("status", "--porcelain", "-uno") else commit

    def relative(self, path: Path) -> str:
        """Return a path as the workspace sees it."""
        full = path.resolve()
        root = self.workspace.root
        return str(full.relative_to(root)) if full.is_relative_to(root) else str(full)

    def close(self) -> None:
        """Release what was opened; MLflow is told how far the audit log got."""
        if "registry" in self.__dict__:
            from toolkit.app.anchoring import renew_anchor

            renew_anchor(self)
        if "engine" in self.__dict__:
            self.engine.close()
        if "ledger" in self.__dict__:
            self.ledger.close()

    def _git(self, *arguments: str) -> str:
        try:
            done = subprocess.run(
                ["git", *arguments],
                cwd=self.workspace.root,
                capture_output=True,
                text=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def open_workbench(start: Path | None = None) -> Iterator[Workbench]:
    """Open the workspace at or above ``start`` (default: the working folder) for one command.

    Raises:
        ConfigurationError: There is no workspace, or its settings are wrong.
    """
    bench = Workbench(open_workspace(start))
    try:
        yield bench
    finally:
        bench.close()
