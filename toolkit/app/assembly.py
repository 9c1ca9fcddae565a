"""The parts of a gateway, put together: the door and everything that stands around it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp

from toolkit.app.answers import SignedAnswers
from toolkit.app.approvals import make_desk
from toolkit.app.composition import Composition
from toolkit.app.evaluations import SandboxEvaluations
from toolkit.app.isolating import reached_here
from toolkit.app.own_secrets import OwnSecrets
from toolkit.app.pages import Pages
from toolkit.app.trusting import open_registry
from toolkit.gateway import (
    Approvals,
    DataDoor,
    Door,
    Facts,
    Governance,
    Handler,
    Identity,
    JobDoor,
    JournalDoor,
    McpDoor,
    RemoteTools,
    Screen,
    TeamTokens,
    build_app,
)
from toolkit.ledger import Ledger, LedgerWriter
from toolkit.privacy import Detector
from toolkit.providers import Catalog, Providers, Router
from toolkit.settings import Workspace
from toolkit.sources import Sources
from toolkit.tools import Toolbox
from toolkit.values import Clock, Decision, Intent, Labels, RunRecord, SystemClock

__all__ = ["Assembly"]

_RETIRE_S = 120.0


@dataclass
class Assembly:
    """One gateway's door, with what answers beside it.

    Attributes:
        workspace: Whose gateway it is.
        ledger, writer: Where calls are recorded.
        on_request: Told of every request.
        clock: Where times come from; the machine's, but in drills.
    """

    workspace: Workspace
    ledger: Ledger
    writer: LedgerWriter
    on_request: Callable[[], None] = lambda: None
    clock: Clock = field(default_factory=SystemClock)
    door: Door = field(init=False)
    app: ASGIApp = field(init=False)

    def __post_init__(self) -> None:
        workspace = self.workspace
        route = workspace.settings.default_route or None
        self._governance = Governance(workspace.registry, default_route=route)
        self._providers = _CurrentProviders(self._governance)
        urls = (workspace.database_url, workspace.engine_url, workspace.mlflow_uri)
        screen = Screen(Detector(), OwnSecrets(os.environ, workspace.registry, urls))
        self._screen = screen
        self._approvals = self._people(screen)
        self.door = Door(
            self.ledger,
            self.writer,
            self._governance,
            self._providers,
            self._approvals,
            screen,
            self.clock,
        )
        links = Pages(workspace)
        self._tools = RemoteTools(self.door, links, self._toolbox)
        sources = Sources(workspace.root, workspace.registry / "data.yaml", os.environ)
        self._data = DataDoor(self.door, links, sources, remember=self._read)
        self._runs = Composition(workspace, self.ledger)
        self.jobs = JobDoor(self.door, links, self._runs)
        team = workspace.settings.team or None
        tokens = TeamTokens(workspace.state / "tokens.json")
        identity = Identity(self.ledger, workspace.user, team, tokens, self.clock)
        self._mcp = McpDoor(self._tools, identity, self.ledger, self.on_request, self.jobs)
        self.app = build_app(
            self.door,
            identity,
            links,
            extension=self,
            mounts=self._mcp.routes(),
            on_request=self.on_request,
        )

    def handlers(self) -> dict[str, Handler]:
        """Return everything that is answered beside the door's own paths."""
        evaluations = SandboxEvaluations(
            self.workspace.registry,
            self.ledger,
            self._governance,
            self.workspace.socket,
            lambda: reached_here().level,
        )
        return {
            **evaluations.handlers(),
            **self._approvals.handlers(),
            **self._tools.handlers(),
            **self._data.handlers(),
            **self.jobs.handlers(),
            **JournalDoor(self.door, Pages(self.workspace)).handlers(),
        }

    async def close(self, settle_s: float) -> None:
        """Let calls that are paid for be recorded, then give back connections and models."""
        await self.door.settle(settle_s)
        await self._mcp.close()
        await asyncio.to_thread(self._runs.close)
        await asyncio.gather(
            self._approvals.close(settle_s),
            self._tools.close(),
            self._data.close(),
            self._providers.close(),
            return_exceptions=True,
        )

    def _people(self, screen: Screen) -> Approvals:
        desk = make_desk(self.ledger, self._governance, self.clock)

        def judge(run: RunRecord, intent: Intent, facts: dict[str, Any]) -> Decision:
            session = self.door.recall.session(run)
            return self._governance.decide(run, intent, Facts(values=facts), session)

        desk.judge = judge
        desk.screen = screen.value
        # A gateway verifies what people signed; it never signs for one of them.
        desk.proofs = SignedAnswers(lambda: open_registry(self.workspace), clock=self.clock)
        return Approvals(self.ledger, desk, clock=self.clock)

    def _toolbox(self) -> Toolbox:
        state = self.workspace.state
        return Toolbox(
            self.workspace.registry / "tools.yaml",
            environ=os.environ,
            root=self.workspace.root,
            logs=state / "logs",
            screen=lambda line: str(self._screen.value("", line)),
        )

    def _read(self, run: RunRecord, intent: Intent, values: list[Any], labels: Labels) -> None:
        self.door.flow.remember(run, intent, values, labels)


class _CurrentProviders:
    """The providers of the catalog that is in force; rebuilt when ``models.yaml`` changes."""

    def __init__(self, governance: Governance) -> None:
        self._governance = governance
        self._catalog: Catalog | None = None
        # Breakers remember what failed, also when the catalog is edited meanwhile.
        self._router = Router()
        self._providers: Providers | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def __call__(self) -> Providers:
        catalog = self._governance.catalog()
        if self._providers is None or catalog is not self._catalog:
            if self._providers is not None:
                self._retire(self._providers)
            self._catalog = catalog
            self._providers = Providers(catalog, environ=os.environ, router=self._router)
        return self._providers

    async def close(self) -> None:
        """Close the providers in force: connections, and a loaded model."""
        for task in list(self._closing):
            task.cancel()
        if self._providers is not None:
            await self._providers.close()

    def _retire(self, old: Providers) -> None:
        """Close replaced providers (a loaded model among them) once their calls have ended."""

        async def close() -> None:
            await asyncio.sleep(_RETIRE_S)
            await old.close()

        task = asyncio.get_running_loop().create_task(close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
