"""``%evaluate`` in the sandbox, from the gateway's side: the set's own scorers and judges."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from workspace_world import end_gateway, write_workspace

from toolkit.app.evaluations import SCORE, START, SandboxEvaluations
from toolkit.client import ensure_gateway
from toolkit.errors import UsageError
from toolkit.gateway import Governance
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
    new_id,
)

HEAD = "schema: evaluation/1\nname: capitals\nagent: answer\nscorers:\n"
OWN = "  - {name: own, kind: custom, file: own.py}\n"
BRIEF = "  - {name: brief, kind: mlflow, mlflow: Guidelines, route: default, arguments: {guidelines: [Be brief.]}}\n"  # fmt: skip
FILE = """
def score(answer, label, inputs):
    if answer == "Rome":
        raise ValueError("not today")
    return answer == label
"""
CASES = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid"}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(exist_ok=True)
    folder = made.registry / "evaluations" / "capitals"
    folder.mkdir()
    (folder / "own.py").write_text(FILE)
    lines = [{"id": n, "inputs": {"country": n}, "expected": c} for n, c in CASES.items()]
    (folder / "cases.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    yield made
    end_gateway(made)


def evaluated(workspace: Workspace, scorers: str, socket: Path | None = None) -> dict[str, Any]:
    """Score three answers of a session as the gateway does."""
    (workspace.registry / "evaluations" / "capitals" / "set.yaml").write_text(HEAD + scorers)
    ledger = Ledger.open(workspace.database_url)
    try:
        session = RunRecord("session-1", RunKind.SESSION, Environment.SANDBOX, "ana", state=RunState.RUNNING)  # fmt: skip
        ledger.create_run(session)
        asked = SandboxEvaluations(
            workspace.registry, ledger, Governance(workspace.registry), socket
        )
        paths = asked.handlers()

        async def both() -> dict[str, Any]:
            started = await paths[START](session, {"set": "capitals"})
            for name, answer in {"France": "Paris", "Italy": "Rome", "Spain": "Lisbon"}.items():
                case = f"{started['evaluation_run_id']}/{name}"
                ledger.answer_case(session.run_id, case, answer, None)
            body = {"evaluation_run_id": started["evaluation_run_id"]}
            return await paths[SCORE](session, body)

        verdict = asyncio.run(both())
        verdict["runs"] = [run for run in ledger.runs(limit=10) if run.kind is RunKind.EVALUATION]
        verdict["spent"] = [ledger.totals(run.run_id).cost.nanos for run in verdict["runs"]]
        return verdict
    finally:
        ledger.close()


def test_a_file_of_the_set_scores_in_the_sandbox(workspace: Workspace) -> None:
    """What it says counts, and what it failed on is shown with its reason, not as wrong."""
    verdict = evaluated(workspace, OWN)
    rows = {row["case_id"]: row for row in verdict["rows"]}
    assert rows["France"]["scores"] == {"own": True}
    assert rows["Spain"]["scores"] == {"own": False}
    assert rows["Italy"]["scores"] == {}
    assert rows["Italy"]["failures"] == {"own": "ValueError: not today"}
    assert (verdict["scores"]["own"]["mean"], verdict["scores"]["own"]["n"]) == (0.5, 2)
    assert verdict["runs"] == [], "a file asks no model, so it has no run"


@pytest.mark.slow
def test_judges_are_a_run_of_the_session(workspace: Workspace) -> None:
    """Their calls belong to a run below the session, which ends with them."""
    answers = 'answers:\n  - text: \'{"result": "yes", "rationale": "short"}\'\n'
    (workspace.registry / "answers.yaml").write_text(answers)
    socket = Path(ensure_gateway(workspace.root))
    verdict = evaluated(workspace, BRIEF, socket)
    assert [row["scores"] for row in verdict["rows"]] == [{"brief": True}] * 3
    (run,) = verdict["runs"]
    assert (run.parent_run_id, run.state) == ("session-1", RunState.SUCCEEDED)
    assert run.environment is Environment.SANDBOX
    assert verdict["spent"][0] > 0


GATED = (
    "gates:\n  capitals:\n"
    "    - {scorer: right, minimum: 0.5}\n"
    "    - {scorer: usd, maximum: 0.02}\n"
    "    - {scorer: seconds, maximum: 60}\n"
)
RIGHT = "  - {name: right, kind: exact}\n"


@dataclass
class Session:
    """A session that answers a set's questions with one model call each."""

    ledger: Ledger
    record: RunRecord
    paths: Any
    asked: int = 0

    def call(self, case_id: str | None, usd: str) -> None:
        """Record an agent's call with a model call inside, for a case."""
        self.asked += 1
        for kind, parent in ((CallKind.AGENT, None), (CallKind.MODEL, "parent")):
            intent = Intent(
                run_id=self.record.run_id,
                kind=kind,
                name=kind.value,
                arguments={"n": self.asked},
                parent=parent,
                occurrence=0,
                request_id=new_id("request"),
                case_id=case_id,
            )
            begun = self.ledger.begin(intent, Decision(Verdict.ALLOW))
            cost = Money.of_usd(usd) if kind is CallKind.MODEL else None
            self.ledger.finish(
                begun.call, Outcome(CallState.OK, answer="x", cost=cost, seconds=0.5)
            )

    def evaluate(self, **asked: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask, answer every case right but the second trial of Spain, and score."""
        started = asyncio.run(self.paths[START](self.record, {"set": "capitals", **asked}))
        while (item := self.ledger.next_case(self.record.run_id)) is not None:
            question = item[0].rpartition("/")[2]
            name = question.partition("#")[0]
            self.call(item[0], "0.01")
            answer = "Lisbon" if question == "Spain#2" else CASES[name]
            self.ledger.answer_case(self.record.run_id, item[0], answer, None)
        body = {"evaluation_run_id": started["evaluation_run_id"]}
        return started, asyncio.run(self.paths[SCORE](self.record, body))


@pytest.fixture
def session(workspace: Workspace) -> Iterator[Session]:
    """A session in a workspace whose production policy has gates for the set."""
    (workspace.registry / "evaluations" / "capitals" / "set.yaml").write_text(
        HEAD.replace("scorers:", "trials: 2\nscorers:") + RIGHT
    )
    policy = workspace.registry / "policies" / "production" / "policy.yaml"
    policy.write_text(policy.read_text().replace("gates: {}\n", GATED))
    with Ledger.open(workspace.database_url) as ledger:
        record = RunRecord("session-1", RunKind.SESSION, Environment.SANDBOX, "ana", state=RunState.RUNNING)  # fmt: skip
        ledger.create_run(record)
        made = SandboxEvaluations(workspace.registry, ledger, Governance(workspace.registry))
        yield Session(ledger, record, made.handlers())


def test_trials_costs_and_times_are_judged_in_the_sandbox(session: Session) -> None:
    """As often as the set says; what was called before the first case is no case's cost."""
    session.call(None, "100")
    started, verdict = session.evaluate()
    assert (started["cases"], started["trials"]) == (3, 2)
    assert [(row["case_id"], row["trial"]) for row in verdict["rows"]] == [
        ("France", 1), ("France", 2), ("Italy", 1), ("Italy", 2), ("Spain", 1), ("Spain", 2),
    ]  # fmt: skip
    assert [row["scores"]["right"] for row in verdict["rows"]] == [True] * 5 + [False]
    assert verdict["scores"]["right"]["mean"] == pytest.approx(5 / 6)
    assert {row["measures"]["usd"] for row in verdict["rows"]} == {0.01}
    assert [gate["passed"] for gate in verdict["gates"]] == [True, True, True]


def test_trials_and_cases_may_be_chosen_and_each_evaluation_has_its_own_costs(
    session: Session,
) -> None:
    """What an earlier evaluation of the session cost is not counted again."""
    session.evaluate(trials=1)
    started, verdict = session.evaluate(trials=3, limit=1)
    assert (started["cases"], started["trials"]) == (1, 3)
    assert [row["trial"] for row in verdict["rows"]] == [1, 2, 3]
    assert {row["measures"]["usd"] for row in verdict["rows"]} == {0.01}


@pytest.mark.parametrize("trials", [-1, 101])
def test_a_number_of_trials_that_no_set_could_have_is_refused(
    session: Session, trials: int
) -> None:
    """The limits are those of a set's own trials."""
    with pytest.raises(UsageError, match="cannot be asked"):
        session.evaluate(trials=trials)


@pytest.mark.parametrize("identity", ["", "capitals", "capitals/eval-1.3", "capitals/eval-1.3.x.0"])
def test_what_names_no_evaluation_is_refused(session: Session, identity: str) -> None:
    """Nothing is guessed from half a name."""
    with pytest.raises(UsageError, match="names no evaluation"):
        asyncio.run(session.paths[SCORE](session.record, {"evaluation_run_id": identity}))


@pytest.mark.parametrize(
    ("takes", "refused"),
    [
        ({"known": ["country"], "required": ["country"]}, None),
        ({"known": ["country", "tone"], "required": ["country"]}, None),
        (None, None),
        ({"known": ["x"], "required": ["x"]}, "France gives country, and it takes x"),
        ({"known": ["country", "x"], "required": ["country", "x"]}, "it takes country, x"),
        ({"known": [], "required": []}, "it takes nothing"),
    ],
)
def test_an_agent_that_cannot_take_the_cases_is_refused(workspace, takes, refused) -> None:
    """Before a case is handed out: no case is left that the next evaluation would get."""
    (workspace.registry / "evaluations" / "capitals" / "set.yaml").write_text(HEAD + OWN)
    with Ledger.open(workspace.database_url) as ledger:
        session = RunRecord("session-2", RunKind.SESSION, Environment.SANDBOX, "ana", state=RunState.RUNNING)  # fmt: skip
        ledger.create_run(session)
        asked = SandboxEvaluations(workspace.registry, ledger, Governance(workspace.registry))
        start = asked.handlers()[START](session, {"set": "capitals", "takes": takes})
        if refused is None:
            assert asyncio.run(start)["cases"] == 3
            return
        with pytest.raises(UsageError, match=refused) as told:
            asyncio.run(start)
        assert "do not fit the agent answer" in told.value.message
        assert ledger.case_answers("session-2") == {}
