"""The same attempts to escape from real kernels, however they were started (issue C, Show 6)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from cli_world import seal
from cli_world import toolkit as toolkit_command
from isolation_kernels import SCRIPT, can_group, escapes, plan_of, source_of
from jupyter_client.manager import start_new_kernel

from toolkit.environments import Environments, lock_dependencies
from toolkit.execution import Ending, Execution, execute
from toolkit.isolation.planted import Planted
from toolkit.kernels import KernelPlan, Zygote, kernel_spec, stop_zygotes, write_kernel_spec
from toolkit.settings import Workspace
from toolkit.values import Environment, IsolationLevel, RunKind, RunRecord, RunState, new_id

pytestmark = pytest.mark.timeout(300)
L0, L1, L2, L3 = IsolationLevel
HARDENED = pytest.param(
    L3,
    marks=pytest.mark.skipif(not can_group(), reason="no control group can be made here: no L3"),
)


@pytest.fixture
def planted() -> Iterator[Planted]:
    with Planted() as made:
        yield made


@pytest.fixture
def zygotes() -> Iterator[Path]:
    """A folder with a zygote for kernels of this interpreter, as a runner starts it."""
    folder = Path(tempfile.mkdtemp(prefix="zygotes-"))
    names = ("HOME", "LANG", "LANGUAGE", "TZ")
    kept = {n: v for n, v in os.environ.items() if n in names or n.startswith("LC_")}
    Zygote(folder, Path(sys.executable), kept).wait(60)
    yield folder
    stop_zygotes(folder)
    shutil.rmtree(folder)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Ending]:
    """Runs one cell as a job's runner does: papermill, the provisioner, a kernel."""

    def go(source: str, plan: KernelPlan, work: Path, interpreter: Path | None = None) -> Ending:
        node = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        record = RunRecord(new_id("run"), RunKind.RUN, Environment.PRODUCTION, "ana")
        return execute(
            Execution(
                run=record,
                ledger="0" * 16,
                notebook=nbformat.writes(node).encode(),
                parameters={},
                folder=tmp_path / record.run_id,
                gateway_socket=None,
                token="token-of-this-run-0123456789",
                timeout_s=120,
                cwd=work,
                kernel=plan,
                **({} if interpreter is None else {"python": interpreter}),
            )
        )

    return go


def printed(ending: Ending) -> str:
    assert ending.state is RunState.SUCCEEDED, ending.message
    (cell,) = (c for c in nbformat.read(ending.output, as_version=4).cells if c.source.strip())
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.mark.chaos
def test_a_jobs_kernel_without_isolation_is_no_prison(job, planted) -> None:
    """The attempts work from a kernel: what is held below is held by the level."""
    ending = job(source_of(planted), plan_of(L0, planted), planted.work)
    found = escapes(printed(ending), L3, planted)
    assert {"tcp", "udp", "unix socket", "other run", "write outside", "home"} <= set(found)


@pytest.mark.chaos
@pytest.mark.parametrize("level", [L2, HARDENED])
def test_no_attempt_of_a_jobs_cold_kernel_succeeds(job, planted, level) -> None:
    """Papermill's kernel, started as a program."""
    ending = job(source_of(planted), plan_of(level, planted), planted.work)
    assert escapes(printed(ending), level, planted) == {}


@pytest.mark.chaos
@pytest.mark.parametrize("level", [L2, HARDENED])
def test_no_attempt_of_a_jobs_warm_kernel_succeeds(job, planted, zygotes, level) -> None:
    """Papermill's kernel, forked from a zygote that is outside."""
    plan = plan_of(level, planted, warm=True, zygotes=zygotes, wait_s=30.0)
    ending = job(source_of(planted), plan, planted.work)
    assert not [note for note in ending.notes if "cold" in note]
    assert escapes(printed(ending), level, planted) == {}


@pytest.fixture
def lab_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[KernelPlan], str]:
    """Writes a kernelspec where JupyterLab and nbval look, as `toolkit lab` does; returns its name."""

    def write(plan: KernelPlan) -> str:
        data = tmp_path / "data"
        write_kernel_spec(data / "kernels" / "kept-in", kernel_spec(Path(sys.executable), plan))
        monkeypatch.setenv("JUPYTER_PATH", str(data))
        return "kept-in"

    return write


@pytest.mark.chaos
@pytest.mark.parametrize("level", [L2, HARDENED])
def test_no_attempt_of_jupyterlabs_kernel_succeeds(lab_spec, planted, level) -> None:
    """By the kernelspec alone, over the connection that JupyterLab's server asks for."""
    name = lab_spec(plan_of(level, planted))
    manager, client = start_new_kernel(60, name, cwd=str(planted.work))
    own = Path(manager.connection_file).parent
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        if message["msg_type"] == "stream":
            said.append(message["content"]["text"])

    try:
        reply = client.execute_interactive(
            source_of(planted), output_hook=hear, timeout=120, allow_stdin=False
        )
        assert reply["content"]["status"] == "ok", reply["content"]
        assert escapes("".join(said), level, planted) == {}
        assert manager.transport == "ipc"
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert not own.exists(), "the connection's key and sockets are gone"


@pytest.mark.chaos
def test_nbval_gets_its_kernel_in_the_same_way(lab_spec, planted) -> None:
    """A notebook whose saved output says `held` passes at L2, and fails where nothing is isolated."""
    port = planted.targets["tcp"]
    source = (
        "import socket\ntry:\n"
        f"    socket.create_connection(('127.0.0.1', {port}), 5)\n    print('escaped')\n"
        "except OSError:\n    print('held')"
    )
    output = nbformat.v4.new_output("stream", name="stdout", text="held\n")
    cell = nbformat.v4.new_code_cell(source, outputs=[output], execution_count=1)
    path = planted.work / "kept.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    codes = []
    for level in (L2, L0):
        name = lab_spec(KernelPlan(level=level))
        command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"]
        command += [
            f"--rootdir={planted.work}",
            "--nbval",
            f"--nbval-kernel-name={name}",
            str(path),
        ]
        done = subprocess.run(
            command, cwd=planted.work, capture_output=True, text=True, timeout=120
        )
        codes.append((done.returncode, "escaped" in done.stdout))
    assert codes == [(0, False), (1, True)], done.stdout


@pytest.mark.chaos
def test_a_run_below_its_policys_minimum_is_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without bubblewrap nothing of the notebook is executed; with it the run is at L2."""
    policy = workspace.registry / "policies" / "production" / "policy.yaml"
    text = policy.read_text()
    assert "minimum_isolation: limits" in text
    policy.write_text(text.replace("minimum_isolation: limits", "minimum_isolation: sandbox"))
    cell = "import pathlib; pathlib.Path('executed').touch(); toolkit.result(done=True)"
    seal(workspace, "careful", cell)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        refused = toolkit_command("run", "careful", "--run-id", "r-refused", "--json")
    assert (refused.code, refused.json["error"]["code"]) == (78, "configuration")
    assert "asks for isolation L2" in refused.json["error"]["message"]
    kept = toolkit_command("show", "r-refused", "--json").json
    assert (kept["state"], kept["cause"]) == ("denied", "policy")
    assert not (workspace.runs / "r-refused" / "work" / "executed").exists()
    done = toolkit_command("run", "careful", "--run-id", "r-held", "--json")
    assert (done.code, done.json["state"]) == (0, "succeeded"), done.told
    assert done.json["tags"]["isolation"] == "L2"
    assert (workspace.runs / "r-held" / "work" / "executed").exists()


@pytest.mark.scale
def test_no_attempt_succeeds_from_a_locked_environment(job, planted, tmp_path) -> None:
    """The interpreter and the packages that a notebook declares (PEP 723), at L2: theirs alone."""
    store = Environments(tmp_path / "environments", tmp_path)
    lock = lock_dependencies(["jinja2>=3"], ">=3.11", cwd=tmp_path, kernel_side=store.kernel_side)
    built = store.ensure(lock)
    source = f"import jinja2, sys\nassert sys.prefix != {sys.prefix!r}\n{source_of(planted)}"
    # An interpreter of its own does not see this one's packages: the program comes with it.
    plan = plan_of(L2, planted, readable=(SCRIPT,))
    ending = job(source, plan, planted.work, built.python)
    assert escapes(printed(ending), L2, planted) == {}
    assert store.verify(built.digest) == []
