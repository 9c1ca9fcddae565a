"""%toolkit tells what this kernel did and leads to promotion."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import toolkit
from toolkit import client
from toolkit.errors import NotebookRejected, UsageError
from toolkit.magics import NBVAL_SANITIZE, Panel


def _told(notebook, line: str) -> str:
    """Return the text of one %toolkit line; the HTML must be marked volatile as a whole."""
    notebook.ok(f"%toolkit {line}")
    (bundle,) = notebook.published
    assert bundle["text/html"].startswith("<section data-toolkit-volatile")
    assert bundle["text/html"].endswith("</section>")
    assert bundle["text/html"].count("</section>") == 1
    assert "\n" not in bundle["text/html"]
    return bundle["text/plain"]


def test_status_tells_who_where_and_what_is_not_shipped(notebook):
    """User, run, environment, spending and the number of calls MLflow has not got."""
    told = dict(line.split(None, 1) for line in _told(notebook, "status").splitlines()[1:])
    assert told["user"] == "ana"
    assert told["environment"] == "sandbox"
    assert told["run_id"] == "session-0001"
    assert told["cost"] == "$0.00012 and 1 call of unknown cost"
    assert told["not"] == "yet in MLflow  3 calls"
    assert told["MLflow"] == "http://127.0.0.1:5001"
    assert _told(notebook, "").splitlines()[1:] == _told(notebook, "status").splitlines()[1:]


def test_calls_lists_the_last_ones(notebook):
    """The table has one line per call, the newest last, as many as asked for."""
    notebook.ok("for n in range(3):\n    toolkit.model(str(n), route=f'r{n}')")
    lines = _told(notebook, "calls 2").splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["r1", "r2"]
    assert lines[2].split() == [
        "05:16:01", "model", "r2", "ok", "allow", "smollm2", "7", "+", "5", "$0.00012", "0.12", "s",
    ]  # fmt: skip


def test_cost_is_summed_by_route_and_model(notebook, gateway):
    """Known costs are added exactly, unknown ones counted and called unknown."""
    notebook.ok("for n in range(2):\n    toolkit.model(str(n))")
    gateway.cost = None
    notebook.ok("_ = toolkit.model('x', route='new')")
    rows = [line.split() for line in _told(notebook, "cost").splitlines()[1:]]
    assert rows[0] == ["default", "smollm2", "2", "14", "10", "$0.00024"]
    assert rows[1] == ["new", "smollm2", "1", "7", "5", "cost", "unknown"]
    assert rows[2][:4] == ["total", "3", "21", "15"]
    assert "1 call of unknown cost" in " ".join(rows[2])


def test_trace_links_the_last_call(notebook, gateway):
    """Before a call there is none, and the next step says how to get one."""
    assert "toolkit ui" in notebook.fails("%toolkit trace").next_step
    notebook.ok("_ = toolkit.model('a')")
    assert _told(notebook, "trace").startswith("http://127.0.0.1:5001/#/traces/")


def test_open_links_mlflow_or_says_that_it_is_not_running(notebook, gateway):
    """No dead link is shown."""
    assert _told(notebook, "open") == "http://127.0.0.1:5001"
    gateway.ui = None
    assert isinstance(notebook.fails("%toolkit open"), UsageError)


@pytest.mark.parametrize("line", ["dance", "calls x", "calls 0", "footer", "footer maybe"])
def test_unknown_words_are_refused(notebook, line):
    """The answer names what is possible."""
    assert isinstance(notebook.fails(f"%toolkit {line}"), UsageError)


# -- panel ------------------------------------------------------------------------------------


def test_ipywidgets_loads_with_the_first_panel_only(notebook):
    """A kernel pays for widgets when it shows one; a second panel replaces the first."""
    notebook.ok("_ = toolkit.model('before')")
    notebook.ok("%toolkit panel")
    (bundle,) = notebook.published
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert bundle["text/plain"] == "toolkit panel: calls and spending of this kernel"
    notebook.ok("%toolkit panel")
    assert sum(isinstance(x, Panel) for x in client.current().listeners) == 1


def test_the_panel_counts_calls_of_all_threads(notebook, gateway):
    """Ten threads of calls are all counted, and the last state reaches the widget."""
    connection = client.connect()
    panel = Panel(every_s=0.01)
    connection.listeners.append(panel)
    gateway.decisions["r3"] = {"verdict": "allow", "production_verdict": "deny"}
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda n: client.model(str(n), route=f"r{n % 5}"), range(50)))
    panel.refresh()
    value = panel.widget.value
    assert ">50</div>" in value
    assert "350 + 250" in value
    assert "$0.006" in value
    assert ">10</div>" in value  # production would object
    assert value.count("<tr>") == 11


def test_the_panel_updates_by_itself(notebook):
    """A call made anywhere changes what the panel shows, without a refresh."""
    connection = client.connect()
    panel = Panel(every_s=0.0)
    changed = threading.Event()
    connection.listeners.append(panel)
    panel.widget.observe(lambda _: changed.set(), "value")
    client.model("a", route="<b>route</b>")
    assert changed.wait(10)
    assert "&lt;b&gt;route&lt;/b&gt;" in panel.widget.value


def test_loading_imports_no_heavy_package(gateway):
    """%load_ext costs no ipywidgets, rich, pandas, pydantic or MLflow."""
    import subprocess

    program = (
        "import sys\nfrom IPython.core.interactiveshell import InteractiveShell as S\n"
        "before = set(sys.modules)\ns = S()\ns.run_cell('%load_ext toolkit')\n"
        "new = set(sys.modules) - before\n"
        "heavy = {'ipywidgets', 'rich', 'pandas', 'pydantic', 'mlflow', 'sqlalchemy', 'click'}\n"
        "assert 'toolkit.magics' in new\nprint(sorted(new & heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


# -- check and promote ------------------------------------------------------------------------


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch) -> Path:
    """A workspace whose `python -m toolkit` is a program of this test, in a folder of its own."""
    (tmp_path / "toolkit.toml").write_text("")
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "orders.ipynb").write_text("{}")
    package = tmp_path / "toolkit"
    package.mkdir()
    (package / "__main__.py").write_text(
        "import os, sys\nprint('called with', *sys.argv[1:], 'in', os.getcwd())\n"
        "print('token' if 'TOOLKIT_RUN_TOKEN' in os.environ else 'no token')\n"
        "sys.exit(int(sys.argv[-1]) if sys.argv[-1].isdecimal() else 0)\n"
    )
    monkeypatch.chdir(tmp_path / "notebooks")
    return tmp_path


def test_check_runs_the_command_on_this_notebook(notebook, workspace, capsys):
    """The kernel's notebook is named to `toolkit check`, in the workspace, without its token."""
    notebook.ok("%toolkit check")
    shown = capsys.readouterr().out.splitlines()
    path = workspace / "notebooks" / "orders.ipynb"
    assert shown[0] == f"called with check {path} in {workspace}"
    assert shown[1] == "no token"


def test_promote_passes_options_on(notebook, workspace, capsys):
    """A path relative to the kernel's folder may be given, and options of the command."""
    notebook.ok("%toolkit promote orders.ipynb --name orders")
    path = workspace / "notebooks" / "orders.ipynb"
    assert f"called with promote {path} --name orders" in capsys.readouterr().out


def test_a_failed_check_fails_the_cell(notebook, workspace):
    """Exit code 1 is an error of the cell; 3 means that a person is asked."""
    assert isinstance(notebook.fails("%toolkit check --code 1"), NotebookRejected)
    notebook.ok("%toolkit promote --code 3")
    assert "waiting for an approval" in notebook.published[0]["text/plain"]


def test_an_unknown_notebook_is_asked_for(notebook, workspace, monkeypatch):
    """Without a path, and where Jupyter told none, the next step shows how to give one."""
    client.current().notebook = None
    assert "NAME.ipynb" in notebook.fails("%toolkit check").next_step
    assert "there is no notebook x.ipynb" in str(notebook.fails("%toolkit check x.ipynb"))


def test_promotion_leaves_out_the_same_facts():
    """The pattern of our displays stands in the file that the promotion gives to nbval."""
    promotion = Path(toolkit.__file__).parent / "promotion" / "nbval_sanitize.cfg"
    assert NBVAL_SANITIZE in promotion.read_text("utf-8")
