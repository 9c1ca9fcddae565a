"""The promoter in process: a real registry, ledger and policy; answers come from a player, not a kernel."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli_world import write_notebook
from promotion_world import AGENT, PARAMETERS, REST

from toolkit.environments import Environments
from toolkit.errors import TrackingError
from toolkit.execution import RunPlan, RunReport
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.policy import Simulation
from toolkit.promotion import Promoter, Promotion, Stage, Wanted
from toolkit.promotion.simulating import JobHistory
from toolkit.registry import AuditRecord, Registry
from toolkit.settings import Workspace
from toolkit.values import Clock, RunKind, RunRecord, RunState, SystemClock

Answering = Callable[[dict[str, Any]], Any]


class Interrupted(BaseException):
    """Ctrl-C, or worse."""


@dataclass
class Player:
    """A runner without kernels: it answers cases as it is told, and succeeds at everything else.

    Attributes:
        ledger: Where answers go.
        runs: Folder of runs.
        answer: What the agent says to a case's inputs.
        dies_after: Answers until the whole promotion is ended; ``None``: never.
        asked: Questions that it was asked, in order.
        begins: Called before an evaluation's first case.
    """

    ledger: Ledger
    runs: Path
    answer: Answering = lambda _: "?"
    dies_after: int | None = None
    asked: list[str] = field(default_factory=list)
    begins: Callable[[], None] = lambda: None

    def gateway(self) -> str:
        """There is no gateway here."""
        return "/nowhere"

    def run(self, plan: RunPlan) -> RunReport:
        run = self.ledger.create_run(plan.run)
        if run.resumable:
            self.ledger.take(run, state=RunState.RUNNING, cause=None, ended_us=None)
        elif run.state is not RunState.RUNNING:
            self.ledger.update_run(run.run_id, state=RunState.RUNNING)
        if run.kind is RunKind.EVALUATION:
            self._serve(run.run_id)
        made = self.ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
        return RunReport(made, self.ledger.totals(run.run_id), {}, seconds=0.1)

    def _serve(self, run_id: str) -> None:
        self.begins()
        given, reset = 0, True
        while (item := self.ledger.next_case(run_id, reset=reset)) is not None:
            if self.dies_after is not None and given >= self.dies_after:
                raise Interrupted
            reset, given = False, given + 1
            self.asked.append(item[0])
            self.ledger.answer_case(run_id, item[0], self.answer(item[1]), None)
        if self.dies_after is not None and given >= self.dies_after:
            raise Interrupted


class Silent:
    """MLflow is down, and shows nothing."""

    def log_evaluation(self, run: RunRecord, log: object) -> str:
        raise TrackingError(f"nothing is shown of {run.run_id} ({log!r:.20})")

    def mirror_version(self, job: str, number: int, **facts: object) -> int:
        raise TrackingError(f"nothing is shown of {job}@{number} ({sorted(facts)})")

    def evaluation(self, *_: object) -> str | None:
        """No page either."""
        return None

    def model_version(self, *_: object) -> str | None:
        return None


@dataclass
class Hall:
    """A workspace in which people promote, without kernels and without a gateway.

    Attributes:
        lets_in: Whether what was sealed gets its alias at once; if not, it waits for people.
    """

    workspace: Workspace
    ledger: Ledger
    clock: Clock = field(default_factory=SystemClock)
    lets_in: bool = True

    def __post_init__(self) -> None:
        self.player = Player(self.ledger, self.workspace.runs)
        self.registry = Registry(self.workspace.registry, clock=self.clock)

    # -- what is promoted ---------------------------------------------------------------------

    def notebook(self, name: str, remark: str = "", code: str = "") -> Path:
        """Write a notebook whose agent is the same but for a comment, or for a statement."""
        agent = AGENT + (f"  # {remark}" if remark else "")
        cells = (*([code] if code else []), agent, *REST)
        made = write_notebook(self.workspace, name, *cells, parameters=PARAMETERS)
        return self.workspace.root / made

    def write_set(
        self, name: str, cases: Iterable[dict[str, Any]], scorers: str, head: str = ""
    ) -> None:
        folder = self.workspace.registry / "evaluations" / name
        folder.mkdir(parents=True, exist_ok=True)
        text = (
            f"schema: evaluation/1\nname: {name}\nagent: answer\nparameters: {{questions: []}}\n"
            f"cases: cases.jsonl\n{head}scorers:\n{scorers}"
        )
        (folder / "set.yaml").write_text(text)
        (folder / "cases.jsonl").write_text("".join(json.dumps(each) + "\n" for each in cases))

    def write_gates(self, gates: str) -> None:
        path = self.workspace.registry / "policies" / "production" / "policy.yaml"
        kept = [line for line in path.read_text().split("\n") if not line.startswith("gates:")]
        path.write_text("\n".join([*kept, f"gates: {gates}", ""]))

    # -- promoting ----------------------------------------------------------------------------

    def promoter(self, user: str = "ana") -> Promoter:
        def release(wanted: Wanted, job: str, version: int) -> str | None:
            if not self.lets_in:
                return "0 of 2 approvals"
            self.registry.set_alias(job, wanted.alias, version, by="cho")
            return None

        root = self.workspace.root
        return Promoter(
            root=root,
            registry=self.registry,
            governance=Governance(self.workspace.registry),
            ledger=self.ledger,
            runner=self.player,  # type: ignore[arg-type]  # of the same interface
            tracking=Silent(),  # type: ignore[arg-type]
            links=Silent(),
            gateway=self.player.gateway,
            user=user,
            environments=Environments(self.workspace.state / "environments", root),
            release=release,
            clock=self.clock,
            decide_again=lambda _job, bundle, *_: JobHistory(Simulation(bundle.digest), 0, 0),
            reproduction=lambda *_: Stage("reproduce", passed=True, summary="as saved"),
        )

    def promote(self, path: Path, job: str, answer: Answering, **wanted: Any) -> Promotion:
        self.player.answer = answer
        self.player.asked.clear()
        return self.promoter().promote(Wanted(path=path, job=job, **wanted))

    # -- what came of it ----------------------------------------------------------------------

    def audit(self, event: str) -> list[AuditRecord]:
        return [record for record in self.registry.audit() if record.event == event]


def number(promotion: Promotion, set_name: str | None = None) -> int:
    """The number of the attempt at a set."""
    return int(stage(promotion, set_name).facts["attempt_on_set"])


def stage(promotion: Promotion, set_name: str | None = None) -> Stage:
    """The evaluation of a set, or of the only one."""
    found = [
        each
        for each in promotion.stages
        if each.name == "evaluate" and (set_name is None or each.facts.get("set") == set_name)
    ]
    assert len(found) == 1, found
    return found[0]


def warned(promotion: Promotion) -> list[str]:
    """What the evaluation says of changes of its set."""
    return [f.message for f in promotion.findings if f.rule == "evaluate.set-changed"]
