"""MLflow's scorers and judges in a set: read without MLflow, asked through the gateway."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from workspace_world import end_gateway, write_workspace

from toolkit.client import ensure_gateway
from toolkit.errors import InvalidFile
from toolkit.evaluation import (
    Asked,
    EvaluationSet,
    Judgement,
    MlflowScorer,
    Scorer,
    ScorerKind,
    Workplace,
    ask_scorers,
)
from toolkit.evaluation.judges import KNOWN, expectations
from toolkit.evaluation.outside import judged_reply
from toolkit.evaluation.processes import Reply
from toolkit.isolation import reached_level
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import (
    CallState,
    Environment,
    IsolationLevel,
    RunKind,
    RunRecord,
    RunState,
    digest_bytes,
)

GUIDED = {"name": "brief", "kind": "mlflow", "mlflow": "Guidelines", "route": "judge", "arguments": {"guidelines": ["Be brief."]}}  # fmt: skip
ANSWERS = """
answers:
  - when: {route: near}
    text: '{"result": 0.75, "rationale": "near enough"}'
  - when: {contains: GARBLED}
    text: I would say that this is fine
  - when: {contains: Madrid}
    text: '{"result": "no", "rationale": "Madrid is elsewhere"}'
  - text: '{"result": "yes", "rationale": "it fits"}'
    input_tokens: 70
    output_tokens: 30
"""
JUDGE = """
  judge:
    provider: script
    model: scripted-judge
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
  near: {provider: script, model: scripted-near, max_tokens: 64, price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}}
"""  # fmt: skip


class TestReading:
    def test_a_set_names_mlflows_scorers(self, write_set):
        """Name, route and arguments are what answers; MLflow itself is not imported for it."""
        own = {"name": "near", "kind": "mlflow", "mlflow": "make_judge", "route": "judge", "better": "more", "worst": 0, "arguments": {"instructions": "Is {{ outputs }} near?"}}  # fmt: skip
        chosen = EvaluationSet.load(write_set(scorers=[GUIDED, own]))
        brief, near = chosen.scorers
        assert brief.outside == MlflowScorer("Guidelines", "judge", {"guidelines": ["Be brief."]})
        assert (brief.is_number, near.is_number, near.worse) == (False, True, 0)

    @pytest.mark.parametrize(
        ("changed", "fault"),
        [
            ({"mlflow": "ToolCallEfficiency"}, "MLflow has no scorer 'ToolCallEfficiency'"),
            ({"route": ""}, "needs a route"),
            ({"arguments": {}}, "Guidelines needs the argument guidelines"),
            ({"arguments": {"guidelines": ["x"], "model": "openai:/gpt"}}, "does not take the argument model"),
            ({"mlflow": "RegexMatch", "arguments": {"pattern": "x"}}, "asks no model; take the route out"),
            ({"kind": "exact"}, "exact has no mlflow"),
            ({"better": "more"}, "needs better: more or less, and worst"),
            ({"kind": "custom", "file": "a.py"}, "custom has no mlflow"),
            ({"timeout_s": 0}, "greater than 0"),
        ],
    )  # fmt: skip
    def test_what_does_not_fit_is_refused(self, write_set, changed, fault):
        """A judge can be pointed at a route only, and gets the arguments that it has."""
        with pytest.raises(InvalidFile) as caught:
            EvaluationSet.load(write_set(scorers=[{**GUIDED, **changed}]))
        assert fault in str(caught.value.to_json())

    def test_a_case_must_hold_what_a_judge_compares_with(self, write_set):
        """Correctness needs an expected response, in every case."""
        correct = {"name": "right", "kind": "mlflow", "mlflow": "Correctness", "route": "judge"}
        with pytest.raises(InvalidFile) as caught:
            EvaluationSet.load(write_set(scorers=[correct]))
        assert "has no expected_response or expected_facts" in str(caught.value.to_json())
        chosen = EvaluationSet.load(write_set(scorers=[{**correct, "expected_field": "city"}]))
        assert chosen.scorers[0].fault_in({"city": "Paris"}) is None

    @pytest.mark.parametrize(
        "changed", [{"route": "other"}, {"arguments": {"guidelines": ["Be long."]}}]
    )
    def test_route_and_arguments_are_part_of_the_sets_digest(self, write_set, changed):
        """Another judge, or another question to it, is another set."""
        before = EvaluationSet.load(write_set(scorers=[GUIDED])).digest
        assert EvaluationSet.load(write_set(scorers=[{**GUIDED, **changed}])).digest != before


@example(True, 2**53 + 1)
@example(True, 10**400)
@given(st.booleans(), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.none())))  # fmt: skip
def test_only_a_value_of_the_declared_type_is_a_verdict(number, value):
    """Whatever else comes back is a failure: it never passes for a yes or a number."""
    better = "more" if number else "yes"
    scorer = Scorer("s", ScorerKind.MLFLOW, better=better, outside=MlflowScorer("Safety", "judge"))
    found = judged_reply(scorer, Reply(value))
    fits = value is None or isinstance(value, bool) != number
    if found.failed:
        assert found.value is None
    else:
        assert fits
        assert found.value == (value if value is None or not number else float(value))


def test_a_text_is_an_expected_response():
    """Labels that are no object are what the answer should have said."""
    assert expectations("Paris") == {"expected_response": "Paris"}
    assert expectations({"guidelines": ["x"]}) == {"guidelines": ["x"]}
    assert expectations(None) == {}


class TestContract:
    """The installed MLflow is as the table says: this is what breaks when it is upgraded."""

    @pytest.mark.parametrize("name", sorted(set(KNOWN) - {"make_judge"}))
    def test_scorers_are_made_and_called_as_the_table_says(self, name):
        """Constructor arguments, and a call with inputs, outputs and expectations only."""
        from mlflow.genai import scorers

        kind, known = getattr(scorers, name), KNOWN[name]
        own = set(kind.model_fields) - {"name", "description", "required_columns", "aggregations"}
        given_ = {*known.required, *known.optional}
        assert given_ <= own
        assert {n for n in own if kind.model_fields[n].is_required()} <= {*known.required}
        assert ("model" in kind.model_fields) is known.asks
        parameters = inspect.signature(kind.__call__).parameters
        asked = set(parameters) - {"self", "trace"}
        assert asked <= {"inputs", "outputs", "expectations"}
        assert "outputs" in asked
        assert bool(known.expects) == ("expectations" in asked)

    def test_make_judge_takes_what_is_given(self):
        """The public function has the arguments that are passed to it."""
        from mlflow.genai.judges import make_judge

        wanted = {"name", "instructions", "model", "feedback_value_type", "inference_params"}
        assert wanted <= set(inspect.signature(make_judge).parameters)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    root = tmp_path_factory.mktemp("judges") / "ws"
    root.mkdir()
    made = write_workspace(root)
    (made.registry / "answers.yaml").write_text(ANSWERS)
    with (made.registry / "models.yaml").open("a") as file:
        file.write(JUDGE)
    yield made
    end_gateway(made)


@pytest.fixture(scope="module")
def heard(workspace: Workspace) -> tuple[dict[str, Judgement], Any, list[Any]]:
    """What four scorers say of three answers, and what the ledger has of it."""
    token = "a-token-of-a-judges-run-0123456789"
    ledger = Ledger.open(workspace.database_url)
    socket = Path(ensure_gateway(workspace.root))
    record = RunRecord("evaluation-judges", RunKind.EVALUATION, Environment.PRODUCTION, "ana", state=RunState.RUNNING, token_digest=digest_bytes(token.encode()))  # fmt: skip
    ledger.create_run(record)
    scorers = [
        _judge("right", "Correctness"),
        _judge(
            "own", "make_judge", "near", better="more", instructions="how near is {{ outputs }}?"
        ),
        _judge("shut", "Guidelines", route="forbidden", guidelines=["x"]),
        _judge("code", "RegexMatch", route="", pattern="Par"),
    ]
    label, inputs = {"expected_response": "Paris"}, {"question": "the capital of France"}
    rows = [
        Asked(f"{answer}-{scorer.name}", scorer.name, answer, label, inputs)
        for scorer in scorers
        for answer in ("Paris", "Madrid", "GARBLED")
    ]
    place = Workplace(reached_level(IsolationLevel.L3).level, socket, token)
    said = {row.question: j for row, j in ask_scorers(scorers, rows, place, threads=2)}
    calls = ledger.calls("evaluation-judges", limit=100)
    totals = ledger.totals("evaluation-judges")
    ledger.close()
    return said, totals, list(calls)


@pytest.mark.slow
class TestThroughTheGateway:
    """Real judges of MLflow, in their process, with a real gateway and a scripted provider."""

    def test_judges_answer_through_a_route(self, heard):
        """Their yes and no are truth values, their rationale the note."""
        said, _, _ = heard
        assert said["Paris-right"] == Judgement(value=True, note="it fits")
        assert said["Madrid-right"] == Judgement(value=False, note="Madrid is elsewhere")
        assert said["Paris-own"] == Judgement(0.75, "near enough")
        assert [said[f"{a}-code"].value for a in ("Paris", "Madrid")] == [True, False]

    def test_a_judge_that_is_not_understood_has_failed(self, heard):
        """An answer that does not parse is neither a pass nor a fail."""
        said, _, _ = heard
        garbled = said["GARBLED-right"]
        assert (garbled.failed, garbled.value) == (True, None)
        assert "does not fit the schema" in garbled.note

    def test_policy_decides_about_judges(self, heard):
        """A route that policy closes is a failure with the policy's reason, at once."""
        said, totals, _ = heard
        assert "this route is closed for maintenance" in said["Paris-shut"].note
        assert said["Paris-shut"].failed
        assert totals.denied == 3, "each was asked once, not ten times"

    def test_every_judges_call_is_recorded_and_paid_for(self, heard):
        """Route, prompt and cost stand in the ledger under the judges' run."""
        _, totals, calls = heard
        made = [call for call in calls if call.state is CallState.OK]
        assert {call.intent.name for call in made} == {"judge", "near"}
        assert any("the capital of France" in str(call.intent.arguments) for call in made)
        assert totals.cost.nanos > 0
        assert totals.unknown_cost_calls == 0


def _judge(
    name: str, mlflow: str, route: str = "judge", better: str = "yes", **given_: Any
) -> Scorer:
    return Scorer(
        name, ScorerKind.MLFLOW, better=better, outside=MlflowScorer(mlflow, route, given_)
    )
