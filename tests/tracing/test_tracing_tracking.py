"""Runs, versions and evaluations in MLflow: what people compare."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tracing_factory import START_US, Factory

from toolkit.tracing import (
    EvaluatedCase,
    EvaluationLog,
    MemoryOutbox,
    MlflowStore,
    Shipper,
    Tracking,
    compare_counts,
    mlflow_trace_id,
)
from toolkit.tracing.runs import STATUS, run_metrics, run_params, table_csv
from toolkit.values import CallKind, Cause, Money, RunKind, RunState


@dataclass(frozen=True)
class Sums:
    """Totals of a run, as the ledger gives them."""

    calls: int = 12
    by_kind: dict = field(default_factory=lambda: {"model": 8, "tool": 3, "agent": 1})
    errors: int = 1
    denied: int = 2
    input_tokens: int = 900
    output_tokens: int = 100
    cost: Money = Money(250_000_000)  # noqa: RUF009 - frozen
    unknown_cost_calls: int = 0
    latency_p50_s: float | None = 0.5
    latency_p95_s: float | None = 1.5


@pytest.fixture
def tracking(store) -> Tracking:
    return Tracking(store.uri, store=store)


@pytest.fixture
def run(make):
    return make.run(
        "run-1",
        kind=RunKind.RUN,
        job="licence-review",
        version=3,
        parameters={"repository": "left-pad", "limit": 3, "deep": {"a": [1]}},
        tags={"git_commit": "abc123", "schedule": "nightly"},
        policy_digest="sha256:pp",
    )


def done(run, state=RunState.SUCCEEDED, **facts):
    return replace(run, state=state, ended_us=START_US + 2_500_000, **facts)


def test_a_run_is_mirrored_once(tracking, run):
    """Starting a run twice, also from another process, finds the first mirror."""
    first = tracking.start_run(run)
    assert Tracking(tracking.store.uri).start_run(run) == first
    assert tracking.start_run(replace(run, mlflow_run_id=first)) == first
    assert tracking.find_run("run-1", tracking.experiment_id(run)) == first


def test_a_finished_run_shows_what_the_ledger_knows(tracking, run):
    """Params, metrics, tags and status of a run that succeeded."""
    mlflow_run_id = tracking.finish_run(done(run), Sums(), {"score": 0.5, "ok": True, "text": "x"})
    found = tracking.store.client.get_run(mlflow_run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params == {"repository": "left-pad", "limit": "3", "deep": '{"a": [1]}'}
    assert found.data.metrics == {
        "cost_usd": 0.25,
        "unknown_cost_calls": 0,
        "input_tokens": 900,
        "output_tokens": 100,
        "total_tokens": 1000,
        "calls": 12,
        "model_calls": 8,
        "tool_calls": 3,
        "errors": 1,
        "denied": 2,
        "latency_p50_s": 0.5,
        "latency_p95_s": 1.5,
        "seconds": 2.5,
        "result.score": 0.5,
        "result.ok": 1.0,
    }
    tags = found.data.tags
    assert tags["toolkit.job"] == "licence-review"
    assert tags["toolkit.version"] == "3"
    assert tags["toolkit.state"] == "succeeded"
    assert tags["toolkit.policy_digest"] == "sha256:pp"
    assert tags["mlflow.source.git.commit"] == "abc123"
    assert tags["toolkit.tag.schedule"] == "nightly"
    assert tags["mlflow.user"] == "ana"
    assert tags["mlflow.source.name"] == "notebooks/review.ipynb"


def test_an_unknown_cost_leaves_the_total_out(tracking, run):
    """A sum without some calls must not read as the total."""
    sums = Sums(unknown_cost_calls=2)
    metrics = run_metrics(done(run), sums, {})
    assert "cost_usd" not in metrics
    assert (metrics["known_cost_usd"], metrics["unknown_cost_calls"]) == (0.25, 2)


def test_many_results_and_tags_all_arrive(tracking, run):
    """MLflow takes 100 tags at a time; nothing is cut off silently."""
    many = replace(run, tags={f"t{n}": "x" for n in range(130)})
    found = tracking.store.client.get_run(
        tracking.finish_run(done(many), Sums(), {f"r{n}": n for n in range(250)})
    )
    assert sum(key.startswith("toolkit.tag.t") for key in found.data.tags) == 130
    assert sum(key.startswith("result.r") for key in found.data.metrics) == 250


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_has_a_status(state):
    """No state of ours is unknown to MLflow."""
    assert STATUS[state] in {"SCHEDULED", "RUNNING", "FINISHED", "FAILED", "KILLED"}
    assert (STATUS[state] in {"FINISHED", "FAILED", "KILLED"}) == state.terminal


def test_a_failed_run_says_why(tracking, run):
    """State, cause and message are on the run's page."""
    failed = done(run, RunState.KILLED, cause=Cause.OUT_OF_MEMORY, message="the kernel had 2 GB")
    found = tracking.store.client.get_run(tracking.finish_run(failed, Sums(), {}))
    assert found.info.status == "KILLED"
    assert found.data.tags["toolkit.cause"] == "out_of_memory"
    assert "the kernel had 2 GB" in found.data.tags["mlflow.note.content"]


def test_finishing_twice_changes_nothing(tracking, run, rows, tmp_path):
    """A runner that crashed after mirroring mirrors again: same rows, no second run."""
    report = tmp_path / "report.html"
    report.write_text("<p>fine</p>")
    for _ in range(2):
        tracking.finish_run(done(run), Sums(), {"score": 0.5}, [report])
    assert rows("select count(*) from runs") == [(1,)]
    assert rows("select count(*), count(distinct key) from metrics") == [(14, 14)]


def test_files_and_tables_are_kept(tracking, run, tmp_path):
    """Output notebook and report as files, results as JSON, tables as CSV; missing ones skipped."""
    notebook = tmp_path / "output.ipynb"
    notebook.write_text("{}")
    results = {"table": [{"a": 1, "b": "é,"}, {"b": [1], "c": None}], "n": 3}
    mlflow_run_id = tracking.finish_run(
        done(run), Sums(), results, [notebook, tmp_path / "missing.html"]
    )
    client = tracking.store.client
    assert {f.path for f in client.list_artifacts(mlflow_run_id)} == {
        "output.ipynb",
        "results.json",
        "tables",
    }
    folder = Path(client.download_artifacts(mlflow_run_id, ""))
    assert json.loads((folder / "results.json").read_text()) == results
    assert (folder / "tables" / "table.csv").read_text() == 'a,b,c\n1,"é,",\n,[1],\n'
    location = client.get_run(mlflow_run_id).info.artifact_uri
    assert location.startswith(tracking.store.artifacts.as_uri() + "/licence-review/")


def test_files_of_an_experiment_made_in_the_interface_are_kept(tracking, run, tmp_path):
    """Its location is behind the server; the file lands in the folder that the server serves."""
    tracking.store.client.create_experiment(
        "licence-review", artifact_location="mlflow-artifacts:/77"
    )
    file = tmp_path / "report.html"
    file.write_text("x")
    mlflow_run_id = tracking.finish_run(done(run), Sums(), {}, [file])
    folder = tracking.store.artifacts / "77" / mlflow_run_id / "artifacts"
    assert (folder / "report.html").read_text() == "x"


def test_traces_shipped_before_the_run_was_mirrored_are_linked(tracking, run, store, make, rows):
    """MLflow was away when the run began: finishing links its traces."""
    outbox = MemoryOutbox([run], [make.call(run_id="run-1", trace_key="k:0") for _ in range(2)])
    Shipper(outbox, store.uri, store=store).drain(60)
    mlflow_run_id = tracking.finish_run(done(run), Sums(), {})
    assert rows("select source_id, destination_id from entity_associations") == [
        (mlflow_trace_id("run-1", "k:0"), mlflow_run_id)
    ]


def test_an_evaluation_is_no_session(tracking, evaluation, store, make):
    """MLflow then compares two of them case by case; their calls are counted and linked all the same."""
    agent = make.call(CallKind.AGENT, "review", run_id="eval-1", case_id="c1")
    child = make.call(run_id="eval-1", parent=agent)
    loose = [make.call(run_id="eval-1") for _ in range(3)]
    calls = [agent, child, *loose]
    Shipper(MemoryOutbox([evaluation], calls), store.uri, store=store).drain(60)
    mlflow_run_id = tracking.finish_run(evaluation, Sums(), {})
    traces = store.client.search_traces(
        locations=[tracking.experiment_id(evaluation)], run_id=mlflow_run_id
    )
    assert {t.info.trace_id for t in traces} == {
        mlflow_trace_id("eval-1", call.trace_key) for call in calls
    }
    for trace in traces:
        assert "mlflow.trace.session" not in trace.info.trace_metadata
        assert all("gen_ai.conversation.id" not in span.attributes for span in trace.data.spans)
    (count,) = compare_counts(
        MemoryOutbox([evaluation], calls), store, experiment="toolkit-sandbox", runs=[evaluation]
    )
    assert (count.calls, count.spans) == (5, 5)


def test_a_run_started_by_a_run_hangs_below_it(tracking, run):
    """MLflow nests a child run under its parent."""
    parent = tracking.start_run(run)
    child = tracking.start_run(replace(run, run_id="run-2", parent_run_id="run-1"))
    tags = tracking.store.client.get_run(child).data.tags
    assert tags["mlflow.parentRunId"] == parent


def test_a_deleted_experiment_comes_back(tracking, run):
    """Somebody deleted the job's experiment in the interface: it is restored, not fought."""
    experiment = tracking.experiment_id(run)
    tracking.store.client.delete_experiment(experiment)
    again = MlflowStore(tracking.store.uri)
    assert again.experiment("licence-review") == experiment
    assert again.client.get_experiment(experiment).lifecycle_stage == "active"


def test_versions_are_mirrored_once_with_their_alias(tracking):
    """The same version twice is one model version; tags and alias follow the last call."""
    facts = {"bundle_digest": "sha256:bb", "gate": "passed", "promoted_by": "ana"}
    first = tracking.mirror_version("licence-review", 1, tags=facts)
    second = tracking.mirror_version("licence-review", 2, tags=facts, alias="production")
    again = tracking.mirror_version(
        "licence-review", 2, tags=facts | {"gate": "passed twice"}, description="**why**"
    )
    assert (first, second, again) == (1, 2, 2)
    client = tracking.store.client
    assert client.get_model_version_by_alias("licence-review", "production").version == 2
    assert client.get_model_version("licence-review", "2").tags["gate"] == "passed twice"
    tracking.set_alias("licence-review", "production", 1)
    assert client.get_model_version_by_alias("licence-review", "production").version == 1
    assert tracking.model_version("licence-review", 2) == 2
    assert tracking.model_version("nothing", 1) is None


def test_a_version_that_was_never_mirrored_does_not_shift_the_others(tracking):
    """The tag, not MLflow's own number, says which version it is."""
    assert tracking.mirror_version("licence-review", 2, tags={}) == 1
    assert tracking.mirror_version("licence-review", 1, tags={}) == 2
    assert tracking.model_version("licence-review", 2) == 1


@pytest.fixture
def evaluation(make):
    run = make.run("eval-1", kind=RunKind.EVALUATION, job="licence-review", version=3)
    return done(run)


def log_of(rows) -> EvaluationLog:
    return EvaluationLog("licences", "sha256:" + "e" * 64, rows, {"exact": 0.5}, {"gate": "ok"})


def test_an_evaluation_has_the_form_that_mlflow_shows(tracking, evaluation, make, store, rows):
    """Run tag, means, data set, linked traces with feedback and expectation."""
    agent = make.call(CallKind.AGENT, "review", run_id="eval-1", case_id="c1")
    Shipper(MemoryOutbox([evaluation], [agent]), store.uri, store=store).drain(60)
    cases = [
        EvaluatedCase(
            "c1",
            {"x": 1},
            {"y": 2},
            {"y": 2},
            {"exact": True, "close": 0.75},
            {"exact": "equal"},
            trace_key=agent.trace_key,
        ),
        EvaluatedCase("c2", {"x": 2}, None, {"y": 3}, {"exact": None}, error="timed out"),
    ]
    ids = [tracking.log_evaluation(evaluation, log_of(cases)) for _ in range(2)]
    assert len(set(ids)) == 1
    found = store.client.get_run(ids[0])
    assert found.data.tags["mlflow.runType"] == "genai_evaluate"
    assert found.data.metrics["exact/mean"] == 0.5
    assert found.inputs.dataset_inputs[0].dataset.name == "licences"
    linked = {row[0] for row in rows("select source_id from entity_associations")}
    traces = {i.tags["toolkit.case"]: i for i in store.trace_infos(linked)}
    assert set(traces) == {"c1", "c2"}
    said = {a.name: a.value for a in traces["c1"].assessments}
    assert said == {"exact": True, "close": 0.75, "expected": {"y": 2}}
    feedback = next(a for a in traces["c1"].assessments if a.name == "exact")
    assert feedback.rationale == "equal"
    assert feedback.metadata["mlflow.assessment.sourceRunId"] == ids[0]
    failed = next(a for a in traces["c2"].assessments if a.name == "exact")
    assert failed.error is not None
    assert traces["c1"].tags["mlflow.traceName"] == "review"


def test_logging_an_evaluation_twice_does_not_double_anything(tracking, evaluation, rows):
    """Assessments have derived ids; cases without calls derived traces."""
    cases = [EvaluatedCase(f"c{n}", {"n": n}, n, n, {"exact": True}) for n in range(5)]
    tracking.log_evaluation(evaluation, log_of(cases))
    counted = [
        f"select count(*) from {table}"
        for table in ("assessments", "spans", "trace_info", "entity_associations", "runs")
    ]
    before = [rows(sql) for sql in counted]
    assert before[0] == [(10,)]
    tracking.log_evaluation(evaluation, log_of(cases))
    assert [rows(sql) for sql in counted] == before


def test_cases_without_calls_are_not_counted_as_calls(tracking, evaluation, store):
    """`spans = calls` stays true for an evaluation whose agent called nobody."""
    tracking.log_evaluation(evaluation, log_of([EvaluatedCase("c1", 1, 2, 2, {"exact": True})]))
    place = tracking.experiment_id(evaluation)
    assert store.count_calls(place, "eval-1", session=False) == 0


@given(
    st.dictionaries(
        st.text(st.characters(codec=None), max_size=300),
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=700),
        max_size=5,
    )
)
def test_any_result_or_parameter_is_taken(values):
    """Names become keys that MLflow takes; only finite numbers become metrics."""
    run = Factory().run()
    for name, number in run_metrics(run, Sums(), values).items():
        assert math.isfinite(number)
        assert all(c.isascii() and (c.isalnum() or c in "_-. /") for c in name)
    for name, text in run_params(values).items():
        assert len(name) <= 250
        assert len(text.encode("utf-8")) <= 6000


def test_only_lists_of_objects_are_tables():
    """Everything else stays in results.json alone."""
    assert table_csv([]) is None
    assert table_csv([1, {}]) is None
    assert table_csv({"a": 1}) is None
    assert table_csv([{}]) == "\n\n"
    published = {"type": "table", "columns": ["a", "b"], "rows": [[1, "x"], [None, "y"]]}
    assert table_csv(published) == "a,b\n1,x\n,y\n"
