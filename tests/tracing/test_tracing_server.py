"""A real `mlflow server`: links lead somewhere, files download, spans arrive over HTTP."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow
import psutil
import pytest
from tracing_factory import START_US, Factory

from toolkit.errors import TrackingError
from toolkit.ledger import is_alive
from toolkit.settings import Workspace, open_workspace
from toolkit.tracing import (
    EvaluatedCase,
    EvaluationLog,
    MemoryOutbox,
    MlflowServer,
    MlflowStore,
    Shipper,
    Tracking,
    artifact_url,
    compare_counts,
    compare_evaluations_url,
    compare_runs_url,
    experiment_url,
    mlflow_trace_id,
    model_url,
    model_version_url,
    run_url,
    session_url,
    trace_url,
    traces_url,
)
from toolkit.values import Money, RunKind, RunState


class Nothing:
    """Totals of a run without calls."""

    calls = errors = denied = input_tokens = output_tokens = unknown_cost_calls = 0
    by_kind: dict[str, int] = {}  # noqa: RUF012
    cost = Money(0)
    latency_p50_s = latency_p95_s = None


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Workspace:
    root = tmp_path_factory.mktemp("workspace")
    (root / "toolkit.toml").write_text("")
    found = open_workspace(root)
    (found.state / "mlflow.db").write_bytes(empty_database.read_bytes())
    return found


@pytest.fixture(scope="module")
def server(workspace: Workspace) -> Iterator[MlflowServer]:
    os.environ["OPENAI_API_KEY"] = "sk-not-for-the-server"
    with MlflowServer(workspace) as running:
        del os.environ["OPENAI_API_KEY"]
        yield running


@pytest.fixture(scope="module")
def base(server: MlflowServer) -> str:
    url = server.url()
    assert url is not None
    return url


@pytest.fixture
def local(workspace: Workspace) -> Tracking:
    """Writes past the server into its database, as the toolkit does by default."""
    return Tracking(workspace.mlflow_uri, artifacts=workspace.artifacts)


def get(url: str, body: dict | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return reply.read()


def finished(make: Factory, run_id: str):
    run = make.run(run_id, kind=RunKind.RUN, job="licence-review", version=1)
    return replace(run, state=RunState.SUCCEEDED, ended_us=START_US + 1_000_000)


def test_the_server_is_found_again(server, workspace, base):
    """A second command gets the same server; its state file names url and pid."""
    assert MlflowServer(workspace).start() == base
    state = json.loads((workspace.state / "mlflow.json").read_text())
    assert state["url"] == base
    assert psutil.pid_exists(state["pid"])
    assert base.startswith("http://127.0.0.1:")


def test_the_server_has_one_worker_no_jobs_and_no_secrets(server):
    """Telemetry and job execution are off; keys of the caller's environment are not passed."""
    state = server.running()
    assert state is not None
    process = psutil.Process(state.pid)
    environ = process.environ()
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert environ["DO_NOT_TRACK"] == "true"
    assert environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert environ["MLFLOW_MODEL_CATALOG_URI"] == ""
    assert "OPENAI_API_KEY" not in environ
    assert len(process.children(recursive=True)) <= 2
    assert os.getpgid(state.pid) == state.pid


def test_a_file_written_past_the_server_downloads_through_it(base, local, make, tmp_path):
    """The interface shows the files of a run whose writer never spoke to the server."""
    report = tmp_path / "report.html"
    report.write_text("<p>fine</p>")
    run_id = local.finish_run(finished(make, "run-1"), Nothing(), {"n": 1}, [report])
    listed = json.loads(get(f"{base}/ajax-api/2.0/mlflow/artifacts/list?run_id={run_id}"))
    assert {file["path"] for file in listed["files"]} == {"report.html", "results.json"}
    assert get(f"{base}/get-artifact?path=report.html&run_uuid={run_id}") == b"<p>fine</p>"


def test_files_written_through_the_server_are_in_the_same_folder(base, workspace, tmp_path):
    """An experiment made by any client of the server keeps its files in `.toolkit/artifacts`."""
    client = mlflow.MlflowClient(base)
    experiment = client.create_experiment("made-by-hand")
    run = client.create_run(experiment)
    client.log_text(run.info.run_id, "hello", "note.txt")
    assert next(workspace.artifacts.rglob("note.txt")).read_text() == "hello"
    url = f"{base}/get-artifact?path=note.txt&run_uuid={run.info.run_id}"
    assert get(url) == b"hello"


def test_everything_works_over_http(base, make, tmp_path):
    """The same shipper and tracking with a server's address: spans, unknown costs, evaluation."""
    store = MlflowStore(base)
    tracking = Tracking(base, store=store)
    run = replace(finished(make, "run-http"), job="over-http")
    unknown = make.call(run_id="run-http", outcome=make.answer(cost=None), trace_key="loose:5")
    odd = make.call(run_id="run-http", arguments={"messages": "\ud800"}, occurrence=7)
    outbox = MemoryOutbox([run], [unknown, odd, *(make.call(run_id="run-http") for _ in range(20))])
    assert Shipper(outbox, base, store=store).drain(60) == 0
    (count,) = compare_counts(outbox, store, experiment="x", runs=[run])
    assert (count.calls, count.spans) == (22, 22)
    first, second = store.trace_infos(
        [mlflow_trace_id("run-http", "loose:0"), mlflow_trace_id("run-http", "loose:5")]
    )
    costs = {i.trace_id: "mlflow.trace.cost" in i.trace_metadata for i in (first, second)}
    assert costs == {
        mlflow_trace_id("run-http", "loose:0"): True,
        mlflow_trace_id("run-http", "loose:5"): False,
    }
    report = tmp_path / "report.html"
    report.write_text("over http")
    run_id = tracking.finish_run(run, Nothing(), {}, [report])
    assert get(f"{base}/get-artifact?path=report.html&run_uuid={run_id}") == b"over http"
    log = EvaluationLog("s", "sha256:1", [EvaluatedCase("c", 1, 2, 2, {"exact": True})])
    assert [tracking.log_evaluation(run, log) for _ in range(2)] == [run_id, run_id]
    assert tracking.mirror_version("job-http", 1, tags={"gate": "ok"}, alias="production") == 1
    assert tracking.mirror_version("job-http", 1, tags={"gate": "ok"}) == 1


def test_two_evaluations_can_be_compared(base, local, make):
    """MLflow's own query of the evaluation page finds both runs with means and assessments."""
    for run_id, right in (("eval-1", True), ("eval-2", False)):
        run = replace(finished(make, run_id), kind=RunKind.EVALUATION)
        rows = [EvaluatedCase(f"c{n}", n, n, n, {"exact": right}) for n in range(3)]
        local.log_evaluation(run, EvaluationLog("set", "sha256:1", rows, {"exact": float(right)}))
    experiment = local.experiment_id(run)
    found = json.loads(
        get(
            f"{base}/ajax-api/2.0/mlflow/runs/search",
            {
                "experiment_ids": [experiment],
                "filter": "tags.`mlflow.runType` = 'genai_evaluate'",
            },
        )
    )["runs"]
    assert len(found) == 2
    means = [m["value"] for r in found for m in r["data"]["metrics"] if m["key"] == "exact/mean"]
    assert sorted(means) == [0.0, 1.0]
    client = mlflow.MlflowClient(base)
    for entry in found:
        traces = client.search_traces(
            locations=[experiment], run_id=entry["info"]["run_id"], include_spans=False
        )
        assert len(traces) == 3
        assert {a.name for t in traces for a in t.info.assessments} == {"exact", "expected"}


@pytest.mark.parametrize(
    ("url", "route"),
    [
        (run_url("B", "r"), "/runs/:runUuid"),
        (run_url("B", "r", "1"), "/experiments/:experimentId/runs/:runUuid"),
        (artifact_url("B", "1", "r", "p"), "/experiments/:experimentId/runs/:runUuid/*"),
        (experiment_url("B", "1"), "/experiments/:experimentId/runs"),
        (traces_url("B", "1"), "/experiments/:experimentId/traces"),
        (trace_url("B", "1", "tr-0"), "/experiments/:experimentId/traces"),
        (session_url("B", "1", "s"), "/experiments/:experimentId/chat-sessions/:sessionId"),
        (compare_runs_url("B", ["1"], ["r", "s"]), "/compare-runs"),
        (compare_evaluations_url("B", "1", "r", "s"), "/experiments/:experimentId/evaluation-runs"),
        (model_url("B", "job"), "/models/:modelName"),
        (model_version_url("B", "job", 3), "/models/:modelName/versions/:version"),
    ],
)
def test_links_are_routes_of_the_interface(base, url, route):
    """Each link matches a route, and its parameters a name, in the JavaScript that is served."""
    text = get(f"{base}/{_main_script(base)}").decode()
    assert f'"{route}"' in text
    path, _, query = url.removeprefix("B/#").partition("?")
    assert re.fullmatch(re.sub(r":\w+", "[^/?]+", route).replace("*", ".+"), path)
    chunks = Path(mlflow.__file__).parent / "server/js/build/static/js"
    served = "".join(file.read_text("utf-8") for file in chunks.glob("*.js")) if query else ""
    for name in parse_qs(query):
        assert re.search(rf'"{name}"|\b{name}:|[?&]{name}=', served)


def _main_script(base: str) -> str:
    found = re.search(r'src="/?(static-files/static/js/main[^"]+)"', get(f"{base}/").decode())
    assert found is not None
    return found[1]


def test_links_are_escaped():
    """A name with a slash, a quote or a hash stays one part of the address."""
    url = model_version_url("http://h/", "a/b#c?d", 3)
    assert url == "http://h/#/models/a%2Fb%23c%3Fd/versions/3"
    query = urlsplit(compare_runs_url("http://h", ["1"], ["r1", "r2"]).replace("#", "")).query
    assert parse_qs(query) == {"runs": ['["r1","r2"]'], "experiments": ['["1"]']}
    assert '"' not in compare_runs_url("http://h", ["1"], ["r1", "r2"])


def test_a_server_of_somebody_else_is_used_as_it_is(tmp_path):
    """With an http URI in the settings nothing is started."""
    (tmp_path / "toolkit.toml").write_text('mlflow_uri = "http://mlflow.example:5000/"')
    server = MlflowServer(open_workspace(tmp_path))
    assert server.start() == server.url() == "http://mlflow.example:5000"
    assert server.running() is None


def test_a_server_that_cannot_start_says_why(tmp_path):
    """The database is none: one sentence, the next step, and no server."""
    (tmp_path / "toolkit.toml").write_text("")
    workspace = open_workspace(tmp_path)
    (workspace.state / "mlflow.db").write_bytes(b"this is no database, but it is long enough")
    with pytest.raises(TrackingError) as raised:
        MlflowServer(workspace).start()
    assert raised.value.next_step
    assert MlflowServer(workspace).running() is None


def test_ctrl_c_while_the_server_starts_leaves_none(tmp_path, empty_database):
    """It answers nobody yet, and nobody would find it again."""
    (tmp_path / "toolkit.toml").write_text("")
    workspace = open_workspace(tmp_path)
    (workspace.state / "mlflow.db").write_bytes(empty_database.read_bytes())

    class Interrupted(MlflowServer):
        def _await(self, *_: object) -> None:
            raise KeyboardInterrupt

    before = set(psutil.Process().children())
    with pytest.raises(KeyboardInterrupt):
        Interrupted(workspace).start(port=0)
    assert set(psutil.Process().children()) <= before
    assert MlflowServer(workspace).running() is None


def test_another_server_on_the_port_is_not_taken_for_ours(tmp_path, empty_database, base):
    """A healthy answer from somebody else's server is no start of ours."""
    (tmp_path / "toolkit.toml").write_text("")
    workspace = open_workspace(tmp_path)
    (workspace.state / "mlflow.db").write_bytes(empty_database.read_bytes())
    with pytest.raises(TrackingError, match="in use"):
        MlflowServer(workspace).start(urlsplit(base).port)
    assert MlflowServer(workspace).url() is None


def test_stopping_ends_the_whole_group(workspace, server):
    """After a stop no process of the group is left, and there is nothing to stop."""
    state = server.running()
    assert state is not None
    family = [psutil.Process(state.pid), *psutil.Process(state.pid).children(recursive=True)]
    assert server.stop()
    psutil.wait_procs(family, timeout=10)
    assert not [p for p in family if is_alive(p)]
    assert not server.stop()
    assert server.url() is None
