"""Every way a run may end, with a real kernel each."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from endings_page import Row, page

from toolkit.errors import InvalidFile, LedgerError, UsageError
from toolkit.execution import CellFact, OutputLimits, exit_code
from toolkit.values import Cause, RunState, resumable

DENIED = "from toolkit.errors import CallDenied\nraise CallDenied('the tool mail is not allowed')"
BUDGET = "from toolkit.errors import BudgetExceeded\nraise BudgetExceeded('the budget is 1 USD')"
LEDGER = "from toolkit.errors import LedgerError\nraise LedgerError('the ledger is full')"
BROKEN = "from toolkit.errors import InvalidFile\nraise InvalidFile('models.yaml has 1 fault')"
SLEEP = "import time\ntime.sleep(600)"
BAD_MESSAGE = """
kernel = get_ipython().kernel
kernel.session.send(kernel.iopub_socket, "display_data", content={}, parent=kernel.get_parent())
"""

F, K, T, D = RunState.FAILED, RunState.KILLED, RunState.TIMED_OUT, RunState.DENIED
TABLE: list[Any] = [
    (
        "a cell raises an error",
        ["1/0"],
        {},
        F,
        Cause.CELL_ERROR,
        "cell 2, line 1: ZeroDivisionError: division by zero",
    ),
    (
        "a cell is not Python",
        ["x = = 1"],
        {},
        F,
        Cause.CELL_DOES_NOT_PARSE,
        "cell 2, line 1: SyntaxError",
    ),
    (None, ["exec('x = =')"], {}, F, Cause.CELL_ERROR, "SyntaxError"),
    ("`sys.exit(0)`", ["import sys\nsys.exit(0)"], {}, F, Cause.EXIT_CALLED, "SystemExit: 0"),
    ("`exit()`", ["exit()"], {}, F, Cause.EXIT_CALLED, "cell 2 called exit"),
    (
        "`os._exit(3)`",
        ["import os\nos._exit(3)"],
        {},
        K,
        Cause.KERNEL_DIED,
        "status 3 while cell 2 ran",
    ),
    (
        "SIGKILL to the kernel",
        ["import os\nos.kill(os.getpid(), 9)"],
        {},
        K,
        Cause.KERNEL_DIED,
        "by SIGKILL while cell 2",
    ),
    (
        "a cell hangs in Python, the run has a limit",
        [SLEEP],
        {"timeout_s": 5.0},
        T,
        Cause.RUN_TIMEOUT,
        "limit of 5 s (cell 2 was running)",
    ),
    (
        "a cell hangs in Python, cells have a limit",
        [SLEEP],
        {"cell_timeout_s": 1.0},
        T,
        Cause.CELL_TIMEOUT,
        "cell 2 ran longer than its limit",
    ),
    ("`!false`", ["!false"], {}, F, Cause.SHELL_FAILED, "cell 2, line 1"),
    (None, ["!false\n!true"], {}, F, Cause.SHELL_FAILED, "cell 2, line 1"),
    ("`%%bash` that ends with 4", ["%%bash\nexit 4"], {}, F, Cause.SHELL_FAILED, "exit status 4"),
    (None, ["x = !false"], {}, F, Cause.SHELL_FAILED, "cell 2, line 1"),
    (None, ["_exit_code = 7"], {}, F, Cause.SHELL_FAILED, "exit status 7"),
    (
        "policy denies a call",
        [DENIED],
        {},
        D,
        Cause.POLICY,
        "cell 2, line 2: CallDenied: the tool mail is not allowed",
    ),
    ("the budget does not cover a call", [BUDGET], {}, D, Cause.BUDGET, "the budget is 1 USD"),
    ("the ledger fails during a call", [LEDGER], {}, F, Cause.INFRASTRUCTURE, "the ledger is full"),
    (
        "a file of the registry is broken while the run is on",
        [BROKEN],
        {},
        F,
        Cause.INFRASTRUCTURE,
        "cell 2, line 2: InvalidFile: models.yaml has 1 fault",
    ),
    (
        "the kernel's messages make no sense",
        [BAD_MESSAGE],
        {},
        F,
        Cause.INFRASTRUCTURE,
        "messages about cell 2 make no sense",
    ),
    (
        None,
        ["import time\nwhile True: print('x' * 9_999, flush=True); time.sleep(.01)"],
        {"limits": OutputLimits(100_000, 200_000, 1_000)},
        F,
        Cause.OUTPUT_LIMIT,
        "exceeded 100000 bytes in a cell",
    ),
]


@pytest.mark.parametrize("row", TABLE)
def test_a_run_that_goes_wrong_says_how_and_leaves_a_true_notebook(run, row):
    """State, cause, place and the notebook's own records agree about what went wrong."""
    name, cells, changes, state, cause, message = row
    assert name is None or page()[name] == Row.of(state, cause)
    ran = run("first = 1", *cells, "never = 1", **changes)
    ending = ran.ending
    assert (ending.state, ending.cause, ending.cell) == (state, cause, 1)
    assert message in ending.message
    assert "\x1b" not in ending.message
    assert ran.statuses == ["completed", "failed", "pending"]
    record = ran.node.metadata.toolkit
    assert (record.state, record.cause, record.message) == (state, cause, ending.message)
    assert ran.node.metadata.papermill.exception is True
    assert ran.node.cells[2].execution_count is None


def test_success_means_that_every_code_cell_ran_and_every_result_arrived(run):
    """A plain run succeeds; the same run without a declared result does not."""
    events: list[tuple[int, int, str, str]] = []

    def tell(position: int, total: int, event: str, cell: CellFact) -> None:
        events.append((position, total, event, cell.label))

    ran = run(
        "a = 1",
        ("print(a)", ["skip-execution"]),
        "",
        extra_cells=("print(a + 1)",),
        results_expected=("answer",),
        received=lambda: {"answer", "more"},
        on_progress=tell,
    )
    assert (ran.ending.state, ran.ending.cause, ran.ending.message) == ("succeeded", None, None)
    everything = "every code cell ran, every declared result arrived"
    assert page()[everything] == Row.of(RunState.SUCCEEDED, None)
    assert ran.text(1) == "1\n", "a tag does not decide what runs"
    assert ran.text(3) == "2\n"
    assert ran.node.cells[3].metadata.toolkit.added is True
    assert ran.statuses == ["completed"] * 4
    assert events[:2] == [(0, 4, "started", "cell 1"), (0, 4, "completed", "cell 1")]
    assert events[-1] == (3, 4, "completed", "extra cell 1")
    assert ran.node.metadata.toolkit.state == "succeeded"
    assert ran.node.metadata.language_info.name == "python"


FORGE = """
kernel = get_ipython().kernel
async def fine(*args, **kwargs):
    return {'status': 'ok', 'execution_count': 1, 'payload': [], 'user_expressions': %s}
kernel.do_execute = fine
"""
ANSWERS = "{'shell': {'status': 'ok', 'data': {'text/plain': '0'}}}"


def test_an_executor_that_only_says_ok_is_found(run):
    """Something replaced the kernel's executor; the first cell that it reports ends the run."""
    ran = run(FORGE % "{}", "assert False", "never = 1")
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["a cell replaces the kernel's executor"] == row
    assert ran.ending.cell == 1
    assert ran.ending.message.startswith("cell 2: the kernel does not confirm that it ran")
    assert ran.statuses == ["completed", "failed", "pending"]


def test_a_kernel_that_forges_its_replies_cannot_forge_results(run):
    """A notebook that makes each later cell report success still lacks what the ledger lacks."""
    cells = (FORGE % ANSWERS, "assert False")
    ran = run(*cells, results_expected=("answer", "b"), received=lambda: {"b"})
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["a cell replaces the executor with care, results are declared"] == row
    assert page()["a declared result is not published"] == row
    assert ran.ending.message == "the notebook ended without publishing answer"
    assert ran.ending.cell is None
    assert ran.node.metadata.toolkit.state == "failed"


def test_without_declared_results_a_careful_forgery_is_not_found(run):
    """The known limit, as the page tells it: nothing but results can be checked outside."""
    ran = run(FORGE % ANSWERS, "assert False")
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["a cell replaces the executor with care, no result is declared"] == row
    assert row.state == "succeeded"


def test_a_ledger_that_cannot_answer_is_infrastructure(run):
    """Not knowing whether a result arrived is neither success nor the notebook's failure."""

    def down() -> set[str]:
        raise LedgerError("the disk is full")

    ending = run("1", results_expected=("answer",), received=down).ending
    assert (ending.state, ending.cause) == (F, Cause.INFRASTRUCTURE)
    assert "the disk is full" in ending.message


def test_a_run_that_a_person_stopped_has_not_succeeded(run):
    """A notebook that swallows its refusals runs to its end; the ending says who stopped it."""
    ending = run("1", stopped=lambda: "ben stopped the run: mad").ending
    assert ending.message == "ben stopped the run: mad"
    name = "a person stopped the run, and the notebook swallowed the refusals"
    assert (
        page()[name]
        == Row.of(ending.state, ending.cause)
        == Row("denied", "policy", 1, "told again")
    )


def test_a_tagged_exception_lets_the_run_go_on_and_is_told(run):
    """The tag raises-exception allows an error or a failed command, and the ending names both."""
    ran = run(
        ("1/0", ["raises-exception"]),
        ("!exit 3\n1/0", ["raises-exception"]),
        ("_exit_code = 5", ["raises-exception"]),
        "print('on')",
    )
    row = Row.of(ran.ending.state, ran.ending.cause)
    assert page()["a cell raises, and is tagged `raises-exception`"] == row
    assert row.state == "succeeded"
    assert [note.split(",")[0] for note in ran.ending.notes] == [
        "cell 1: ZeroDivisionError: division by zero",
        "cell 2: CalledProcessError: Command 'exit 3' returned non-zero exit status 3.",
        "cell 3: a shell command returned exit status 5",
    ]
    first = ran.node.cells[0].metadata
    assert first.toolkit.tolerated == "ZeroDivisionError: division by zero"
    assert (first.papermill.status, first.papermill.exception) == ("completed", True)
    assert ran.text(3) == "on\n"


def test_a_kernel_that_hangs_after_its_last_cell_is_ended_by_the_runs_limit(run):
    """Work that a cell leaves behind in the kernel's loop cannot outlast the run's limit."""
    later = "import asyncio, time\nasyncio.get_running_loop().call_later(.05, time.sleep, 600)"
    ran = run(later, "import time\nawait asyncio.sleep(.04)", timeout_s=3.0)
    assert (ran.ending.state, ran.ending.cause) == (T, Cause.RUN_TIMEOUT)


def test_bytes_that_are_no_notebook_are_refused_before_anything_starts(run, tmp_path):
    """The caller is told about a broken file; no folder is made."""
    with pytest.raises(InvalidFile, match="not a notebook"):
        run(notebook=b"{", folder=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_expected_results_need_somebody_to_ask(run):
    """Results that nobody can confirm are a mistake of the caller, never a success."""
    with pytest.raises(UsageError, match="nobody can say"):
        run("1", results_expected=("answer",))


@pytest.mark.parametrize(
    ("state", "cause", "code"),
    [
        (RunState.SUCCEEDED, None, 0),
        (RunState.WAITING, None, 3),
        (RunState.FAILED, Cause.CELL_ERROR, 1),
        (RunState.FAILED, Cause.RESULTS_MISSING, 1),
        (RunState.FAILED, Cause.INFRASTRUCTURE, 75),
        (RunState.FAILED, Cause.KERNEL_START, 75),
        (RunState.KILLED, Cause.KERNEL_DIED, 75),
        (RunState.KILLED, Cause.OUT_OF_MEMORY, 75),
        (RunState.LOST, Cause.RUNNER_DIED, 75),
        (RunState.DENIED, Cause.POLICY, 1),
        (RunState.SKIPPED, None, 99),
        (RunState.TIMED_OUT, Cause.RUN_TIMEOUT, 124),
        (RunState.CANCELLED, Cause.SIGNAL, 143),
    ],
)
def test_each_ending_has_its_exit_code(state, cause, code):
    """Schedulers read the exit code: fail, try again, skipped, timed out, cancelled."""
    assert exit_code(state, cause) == code


def test_each_line_of_the_page_is_played():
    """By a test here, or by one of those that take longer."""
    folder = Path(__file__).parent
    tests = [*folder.glob("test_execution_endings*.py"), folder / "test_execution_kernel.py"]
    text = "".join(path.read_text("utf-8") for path in tests)
    assert [name for name in page() if f'"{name}"' not in text] == []
    assert len(page()) >= 30


def test_what_is_worth_another_try_goes_on():
    """A scheduler that reads `try again` starts the same id, and that must not tell the same end."""
    for state, cause in itertools.product(RunState, [None, *Cause]):
        if state.terminal and exit_code(state, cause) == 75:
            assert resumable(state, cause) or cause is Cause.RUNNER_DIED, (state, cause)


def test_a_run_that_has_not_ended_has_no_exit_code():
    """Every terminal state has a code, and only running and queued have none."""
    for state in RunState:
        if state in (RunState.QUEUED, RunState.RUNNING):
            with pytest.raises(ValueError, match="no exit code"):
                exit_code(state, None)
        else:
            assert exit_code(state, None) in {0, 1, 3, 75, 99, 124, 143}
