"""The audit log's end is known where the registry's disk is not: MLflow was told of it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from cli_world import Done, seal, toolkit
from workspace_world import write_workspace

from toolkit.app.anchoring import check_anchor
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.registry import AuditRecord, Registry
from toolkit.settings import Workspace
from toolkit.tracing import Anchor, Anchors, MlflowStore


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow, made once."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    assert MlflowStore(f"sqlite:///{path}").client is not None
    return path


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    made.state.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.chdir(root)
    return made


@pytest.fixture
def anchored(house: Workspace, database: Path) -> Workspace:
    """A workspace with MLflow, two versions, and a first anchor."""
    path = Path(house.mlflow_uri.partition(":///")[2].partition("?")[0])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(database.read_bytes())
    seal(house, "steady")
    seal(house, "steady")
    assert toolkit("registry", "rollback", "steady").code == 0
    return house


def anchors(workspace: Workspace) -> list[Anchor]:
    return Anchors(MlflowStore(workspace.mlflow_uri, artifacts=workspace.artifacts)).all()


def log(workspace: Workspace) -> Path:
    return workspace.registry / "log" / "audit.jsonl"


def head(workspace: Workspace) -> AuditRecord:
    found = Registry(workspace.registry).audit_head()
    assert found is not None
    return found


def rewrite(workspace: Workspace, *, by: str) -> None:
    """Write the log again, every link and hash as they should be, with another person in it."""
    prev, lines = "sha256:" + "0" * 64, b""
    for record in list(Registry(workspace.registry).audit()):
        person = by if record.by == "ana" else record.by
        made = AuditRecord.of(record.n, record.at, record.event, person, record.body, prev)
        lines, prev = lines + made.to_line(), made.hash
    log(workspace).write_bytes(lines)


def verify() -> Done:
    return toolkit("registry", "verify", "--json")


def faults(done: Done) -> list[str]:
    return [fault["message"] for fault in done.json["faults"]]


@pytest.mark.parametrize(
    "command",
    [
        ("registry", "rollback", "steady", "--to", "2"),
        ("registry", "revoke", "steady@2", "--reason", "leaks"),
        ("policy", "promote", "production"),
        ("stop", "--agent", "answer", "--reason", "odd"),
        ("promote", "notebooks/bad.ipynb"),
    ],
    ids=lambda command: command[0] + "-" + command[1],
)
def test_whatever_adds_to_the_log_renews_its_anchor(
    anchored: Workspace, command: tuple[str, ...]
) -> None:
    """An alias move, a revocation, a policy, a stop, a refusal; in an unsigned registry."""
    (anchored.root / "notebooks" / "bad.ipynb").write_text("{}")
    before = head(anchored)
    done = toolkit(*command)
    assert "not anchored" not in done.err
    now = head(anchored)
    assert now.n > before.n, done.told
    (anchor,) = anchors(anchored)
    assert (anchor.records, anchor.head) == (now.n, now.hash)
    found = verify()
    assert (found.code, found.json["anchored_until"]) == (0, now.n)
    assert f"MLflow was told of record {now.n}" in found.json["anchor"]


def test_a_cut_tail_is_an_error_and_the_anchor_stays(
    anchored: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    """What the chain cannot show: whole records are gone.  A command after it does not hide that."""
    (before,) = anchors(anchored)
    lines = log(anchored).read_bytes().splitlines(keepends=True)
    log(anchored).write_bytes(b"".join(lines[:-1]))
    assert [r.n for r in Registry(anchored.registry).audit()][-1] == before.records - 1
    found = verify()
    assert found.code == 78
    (told,) = faults(found)
    assert told.startswith(f"ends at record {before.records - 1}, MLflow was told of record")
    assert "its tail was cut" in told
    assert toolkit("registry", "rollback", "steady", "--to", "2").code == 0
    assert "not anchored anew" in caplog.text
    assert anchors(anchored) == [before]
    assert "another record" in " ".join(faults(verify())), "longer now, and still another"


def test_a_log_that_was_written_again_is_an_error(anchored: Workspace) -> None:
    """Its chain is whole: the versions' records are there, and somebody else has done it."""
    with open_workbench() as bench:
        bench.registry.record("trust.changed", {"what": "x"}, by="ben")
    (anchor,) = anchors(anchored)
    records = list(Registry(anchored.registry).audit())
    last = records[-1]
    made = AuditRecord.of(last.n, last.at, last.event, "cho", last.body, last.prev)
    kept = b"".join(record.to_line() for record in records[:-1])
    log(anchored).write_bytes(kept + made.to_line())
    found = verify()
    assert found.code == 78
    (told,) = faults(found)
    assert told.startswith(f"has another record {last.n} than MLflow was told of at {anchor.at}")
    assert told.endswith(f"expected {last.hash}, actual {made.hash}")


def test_a_log_that_was_begun_anew_is_an_error(anchored: Workspace) -> None:
    """Another first record is another log, and MLflow knows that one was here before."""
    rewrite(anchored, by="ana")
    assert verify().code == 0, "the same records are the same log"
    first = log(anchored).read_bytes().splitlines(keepends=True)[0]
    record = AuditRecord.from_line(first)
    records = list(Registry(anchored.registry).audit())
    prev, lines = "sha256:" + "0" * 64, b""
    for one in records:
        at = "2026-01-01T00:00:00.000000Z" if one.n == record.n else one.at
        made = AuditRecord.of(one.n, at, one.event, one.by, one.body, prev)
        lines, prev = lines + made.to_line(), made.hash
    log(anchored).write_bytes(lines)
    found = verify()
    assert found.code == 78
    assert faults(found)[0].startswith("was begun anew: MLflow was told of another one here")


def test_without_mlflow_the_registry_is_verified_and_it_is_said(house: Workspace) -> None:
    """No database yet: none is made for this, and a stop waits for nothing."""
    seal(house, "steady")
    assert toolkit("policy", "promote", "production").code == 0
    found = verify()
    assert not list(house.state.rglob("mlflow.db"))
    assert (found.code, found.json["anchored_until"]) == (0, 0)
    assert "not held against an anchor" in found.json["anchor"]


def test_a_server_that_is_away_is_a_warning(
    house: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was done is done, and the person is told that nothing was anchored."""
    seal(house, "steady")
    monkeypatch.setenv("TOOLKIT_MLFLOW_URI", "http://127.0.0.1:9")
    assert toolkit("policy", "promote", "production").code == 0
    assert "the audit log is not anchored in MLflow" in caplog.text
    found = verify()
    assert found.code == 0
    assert "does not answer" in found.json["anchor"]


def test_another_registry_in_the_same_mlflow_is_none_of_its_business(anchored: Workspace) -> None:
    """An anchor is of one log, and of one place."""
    store = MlflowStore(anchored.mlflow_uri, artifacts=anchored.artifacts)
    other = Anchor("sha256:" + "7" * 64, 99, "sha256:" + "8" * 64, "elsewhere:/r", "2026-01-01")
    Anchors(store).write(other)
    assert verify().code == 0
    assert {one.log for one in anchors(anchored)} > {other.log}
    client = store.client
    experiment = client.get_experiment_by_name("toolkit-registry")
    client.set_experiment_tag(experiment.experiment_id, "toolkit.audit.odd", json.dumps([1]))
    with open_workbench() as bench:
        assert isinstance(bench, Workbench)
        assert check_anchor(bench).faults == ()


def test_what_is_written_beside_mlflow_is_what_mlflow_reads(anchored: Workspace) -> None:
    """The tag in the file is MLflow's: read, replaced and written by either."""
    store = MlflowStore(anchored.mlflow_uri, artifacts=anchored.artifacts)
    client = store.client

    def tags() -> dict[str, str]:
        return dict(client.get_experiment_by_name("toolkit-registry").tags)

    (first,) = anchors(anchored)
    assert Anchor.read(tags()[first.key]) == first
    later = replace(first, records=first.records + 5)
    fresh = Anchors(MlflowStore(anchored.mlflow_uri, artifacts=anchored.artifacts))
    fresh.write(later)
    assert Anchor.read(tags()[first.key]) == later
    experiment = client.get_experiment_by_name("toolkit-registry").experiment_id
    client.set_experiment_tag(experiment, first.key, json.dumps(asdict(first), sort_keys=True))
    assert fresh.all() == [first]
    client.delete_experiment(experiment)
    fresh.write(later)
    assert client.get_experiment(experiment).lifecycle_stage == "active"
    assert fresh.all() == [later]


def test_a_stop_does_not_load_mlflow(anchored: Workspace) -> None:
    """Its anchor goes into the file."""
    code = (
        "import sys; from toolkit.cli import main; "
        "code = main(['stop', '--agent', 'answer', '--reason', 'odd']); "
        "sys.exit(code or 10 * ('mlflow' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=anchored.root, check=False)
    assert done.returncode == 0
    (anchor,) = anchors(anchored)
    assert anchor.head == head(anchored).hash
