"""Loading, cell hooks, displays and errors in a real IPython shell."""

from __future__ import annotations

import pytest
from magics_notebook import Notebook

from toolkit import client
from toolkit.client import wire
from toolkit.errors import BudgetExceeded, CallDenied
from toolkit.magics import load_ipython_extension, unload_ipython_extension

ASK = "toolkit.model('hello')"


def test_loading_connects_and_gives_the_name_toolkit(notebook, gateway):
    """After %load_ext the kernel is connected and `toolkit` is there."""
    assert len(gateway.asked(wire.STATUS)) == 1
    assert notebook.ok(ASK).text == "echo: hello"


def test_loading_twice_changes_nothing(notebook, gateway):
    """Hooks and listeners are registered once."""
    load_ipython_extension(notebook.shell)
    notebook.ok("replies = [toolkit.model('a'), toolkit.model('b')]")
    assert len(notebook.published) == 1
    assert len(client.current().listeners) == 1


def test_calls_are_recorded_under_the_cells_id(notebook, gateway):
    """JupyterLab's cell id travels with every call of the cell."""
    notebook.ok(ASK, cell_id="cell-7")
    assert gateway.asked(wire.MODEL)[-1]["cell"] == "cell-7"


def test_a_cell_run_again_repeats_its_occurrences(notebook, gateway):
    """With an id, a second execution is the same calls again (a new generation)."""
    notebook.ok(ASK, cell_id="a")
    notebook.ok(ASK, cell_id="b")
    notebook.ok(ASK, cell_id="a")
    assert [body["occurrence"] for body in gateway.asked(wire.MODEL)] == [0, 1, 0]


def test_equal_cells_without_ids_are_different_calls(notebook, gateway):
    """papermill sends no ids: the second of two equal cells must not get the first one's record."""
    notebook.ok(ASK)
    notebook.ok(ASK)
    first, second = gateway.asked(wire.MODEL)
    assert (first["occurrence"], second["occurrence"]) == (0, 1)
    assert first["cell"] != second["cell"]
    assert first["cell"].partition(".")[0] == second["cell"].partition(".")[0]


def test_a_reply_is_shown_as_a_card(notebook):
    """A ModelReply has an HTML card with a text twin."""
    reply = notebook.ok(ASK)
    data, _ = notebook.shell.display_formatter.format(reply)
    assert data["text/plain"] == "echo: hello"
    assert "smollm2" in data["text/html"]


def test_a_cell_with_calls_gets_one_line(notebook):
    """A cell whose calls nothing showed gets a line; it can be switched off."""
    notebook.ok("a = toolkit.model('a'); b = toolkit.model('b')")
    (line,) = notebook.published
    assert line["text/plain"] == "2 governed calls: model default ×2"
    notebook.ok("1 + 1")
    assert notebook.published == []
    notebook.ok("%toolkit footer off")
    notebook.ok("a = toolkit.model('a')")
    assert notebook.published == []


def test_a_shown_reply_needs_no_line(notebook):
    """One model call whose card is on the screen is not told twice."""
    notebook.ok(ASK)
    assert notebook.published == []


def test_what_production_would_deny_is_told_under_the_cell(notebook, gateway):
    """A sandbox call that production would deny is visible where it was made."""
    gateway.decisions["send"] = {
        "verdict": "allow", "production_verdict": "deny", "production_reasons": ["not catalogued"],
    }  # fmt: skip
    notebook.ok("@toolkit.tool\ndef send(n: int) -> int:\n    return n\n")
    notebook.ok("_ = send(1)")
    assert "production would deny tool send: not catalogued" in notebook.published[0]["text/plain"]


def test_an_error_is_a_box_and_not_a_traceback(notebook, gateway, capsys):
    """Cause, own line, place and next step are shown, and nothing of our insides."""
    gateway.errors["default"] = CallDenied("no", where="policy.yaml", next_step="ask ana")
    error = notebook.fails("x = 1\ny = toolkit.model('hello')")
    shown = capsys.readouterr().out
    assert isinstance(error, CallDenied)
    for part in ("CallDenied", "line 2 of the cell: y = toolkit.model", "policy.yaml", "ask ana"):
        assert part in shown
    assert "Traceback" not in shown
    assert "connection.py" not in shown


def test_other_errors_keep_their_traceback(notebook, capsys):
    """A person's own mistakes look as they always do, and %tb still shows ours in full."""
    assert isinstance(notebook.fails("1/0"), ZeroDivisionError)
    assert "Traceback" in capsys.readouterr().out


def test_the_full_traceback_is_one_magic_away(notebook, gateway, capsys):
    """%tb shows what the box left out."""
    gateway.errors["default"] = BudgetExceeded("the budget is spent")
    notebook.fails(ASK)
    capsys.readouterr()
    notebook.run("%tb")
    assert "models.py" in capsys.readouterr().out


def test_unloading_takes_everything_out(notebook, gateway, capsys):
    """Magics, hooks, listeners and the error box are gone; plain calls still work."""
    unload_ipython_extension(notebook.shell)
    unload_ipython_extension(notebook.shell)
    assert "model" not in notebook.shell.magics_manager.magics["cell"]
    assert "evaluate" not in notebook.shell.magics_manager.magics["line"]
    assert client.current().listeners == []
    notebook.ok("reply = toolkit.model('a')")
    assert notebook.published == []
    gateway.errors["default"] = CallDenied("no")
    notebook.fails(ASK)
    assert "Traceback" in capsys.readouterr().out


@pytest.fixture
def lost(bare_shell, monkeypatch, tmp_path) -> Notebook:
    """A shell outside of any workspace, with the extension loaded."""
    monkeypatch.delenv(wire.ENV_SOCKET, raising=False)
    monkeypatch.delenv(wire.ENV_TOKEN, raising=False)
    monkeypatch.chdir(tmp_path)
    client.disconnect()
    book = Notebook(bare_shell)
    book.ok("%load_ext toolkit")
    return book


def test_loading_without_a_workspace_says_so_and_goes_on(lost, capsys):
    """One sentence with the next step, no traceback, and the magics are there."""
    (told,) = lost.published
    assert told["text/plain"].startswith("toolkit is loaded but not connected: no toolkit.toml")
    assert "toolkit init" in told["text/plain"]
    assert "model" in lost.shell.magics_manager.magics["cell"]
    assert "Traceback" not in capsys.readouterr().out
    lost.ok("1 + 1")


def test_the_next_call_tries_again(lost, gateway):
    """Once the gateway is there, the next cell is connected, counted and shown."""
    lost.ok("replies = toolkit.model('a'), toolkit.model('b')", cell_id="c")
    assert lost.published[0]["text/plain"] == "2 governed calls: model default ×2"
    assert gateway.asked(wire.MODEL)[0]["cell"] == "c"
