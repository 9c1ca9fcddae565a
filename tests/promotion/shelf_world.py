"""A workspace without a gateway, a candidate in it, and measurements that were recorded before."""

from __future__ import annotations

from dataclasses import dataclass, field

from cli_world import notebook_text

from toolkit.document import Notebook
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.promotion.candidate import Candidate
from toolkit.promotion.locking import Surroundings
from toolkit.promotion.recall import Memory, remember
from toolkit.registry import Registry
from toolkit.settings import Workspace
from toolkit.values import Environment, RunKind, RunState, SystemClock

NOTEBOOK = notebook_text("print(1)")


@dataclass
class Later:
    """A clock that is some days ahead."""

    days: float = 0.0
    real: SystemClock = field(default_factory=SystemClock)

    def now_us(self) -> int:
        return self.real.now_us() + int(self.days * 86_400_000_000)

    def monotonic_s(self) -> float:
        return self.real.monotonic_s()


@dataclass
class Shelf:
    """A workspace without a gateway, and a candidate in it."""

    workspace: Workspace
    ledger: Ledger

    def memory(self, *, user: str = "ana", text: str = NOTEBOOK, days: float = 0.0) -> Memory:
        notebook = Notebook.parse(text.encode())
        governance = Governance(self.workspace.registry)
        candidate = Candidate(
            job="steady",
            notebook=notebook,
            data=notebook.normalised(),
            name="notebooks/steady.ipynb",
            user=user,
            bundle=governance.bundle(Environment.PRODUCTION),
            parameters={},
            surroundings=Surroundings({"kind": "workspace"}),
        )
        self.candidate = candidate
        registry = Registry(self.workspace.registry)
        return remember(candidate, registry, self.ledger, governance, Later(days))

    def measure(self, state: RunState = RunState.SUCCEEDED, *, job: str = "steady") -> str:
        """Record an evaluation of two cases, as a refused promotion did."""
        memory = self.memory()
        run = self.ledger.create_run(self.candidate.run(RunKind.EVALUATION, {}))
        self.ledger.put_cases(run.run_id, [("a", {"n": 1}), ("b", {"n": 2})])
        self.ledger.answer_case(run.run_id, "a", "one", None)
        self.ledger.answer_case(run.run_id, "b", None, {"code": "x", "message": "no"})
        self.ledger.update_run(run.run_id, state=state)
        memory.note(memory.key("evaluate"), [run.run_id])
        body = {"job": job, "measurements": memory.noted}
        Registry(self.workspace.registry).record("promotion.refused", body, by="ana")
        return run.run_id

    def found(self, **changes: object) -> list[str]:
        memory = self.memory(**changes)  # type: ignore[arg-type]
        return [source.run.run_id for source in memory.find(memory.key("evaluate"))]
