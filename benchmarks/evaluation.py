"""An evaluation: what a row costs beside ``mlflow.genai.evaluate``, and a promotion made again.

``python -m benchmarks.evaluation [--rows N] [--rounds N]`` prints a table and writes
``results/evaluation.json``.

A trivial function answers N rows (default 1,000) and one scorer compares each answer, so that all
time is overhead.  Both sides end when MLflow's evaluation pages can show and compare every row, in
a fresh SQLite database of their own, one after the other.  Ours is the whole way of a promotion: a
kernel is started and asks the gateway for each case, policy decides and the ledger records each
agent call and answer, scores and gates are computed, spans are shipped, assessments written.  The
peer calls the function in its own process, traced, with its ten threads, without its rate limits and
with connections enough; importing MLflow and making its database is not timed on either side.  The sides take
turns, three times each (``--rounds``), every time in fresh databases; figures are medians.

After the first time the same notebook is promoted by the command line: at first, once more (nothing has changed), and
with ``--again``, which seals another version from what was measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gateway import MODELS, PRODUCTION, RULES, SANDBOX, TOOLS
from benchmarks.results import figure, machine, publish
from toolkit.gateway import read_record
from toolkit.ledger import is_alive
from toolkit.settings import Workspace, open_workspace

PARAMETERS = "limit: int = 1  # how many numbers"
AGENT = '''@toolkit.agent
def spell(number: int) -> str:
    """The number as text."""
    return str(number)'''
CELLS: tuple[tuple[str, list[str]], ...] = (
    ("import toolkit", []),
    (PARAMETERS, ["parameters"]),
    (AGENT, []),
    ("said = [spell(number) for number in range(limit)]\nprint(len(said), 'numbers')", []),
    ("toolkit.result(count=len(said))", []),
)
SET = """
schema: evaluation/1
name: numbers
agent: spell
parameters: {limit: 0}
scorers: [{name: correct, kind: exact}]
"""
NOTEBOOK = "notebooks/numbers.ipynb"
_REPEATS = 3
AT_ITS_BEST = {
    # With its own 15 connections its threads wait for each other, 30 s at a time, on a busy machine.
    "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE": "64",
    "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW": "64",
    # It would begin with ten rows a second.
    "MLFLOW_GENAI_EVAL_PREDICT_RATE_LIMIT": "0",
    "MLFLOW_GENAI_EVAL_SCORER_RATE_LIMIT": "0",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
"""Settings of MLflow under which it is fastest here."""


# -- ours ------------------------------------------------------------------------------------------


@contextlib.contextmanager
def workspace(rows: int) -> Iterator[Workspace]:
    """A workspace with the notebook and its set; its gateway ends here."""
    root = Path(tempfile.mkdtemp(prefix="bench-eval-"))
    gated = PRODUCTION.replace("gates: {}", "gates: {numbers: [{scorer: correct, minimum: 0.9}]}")
    cases = [{"id": f"n{n}", "inputs": {"number": n}, "expected": str(n)} for n in range(rows)]
    files = {
        "toolkit.toml": 'user = "bench"\n',
        "registry/models.yaml": MODELS.format(url="http://127.0.0.1:9/v1"),
        "registry/tools.yaml": TOOLS,
        "registry/policies/sandbox/policy.yaml": SANDBOX,
        "registry/policies/sandbox/rules.cedar": RULES,
        "registry/policies/production/policy.yaml": gated,
        "registry/policies/production/rules.cedar": RULES,
        "registry/evaluations/numbers/set.yaml": SET,
        "registry/evaluations/numbers/cases.jsonl": "".join(f"{json.dumps(c)}\n" for c in cases),
        NOTEBOOK: _notebook(),
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text.lstrip(), "utf-8")
    made = open_workspace(root)
    try:
        yield made
    finally:
        record = read_record(made.state)
        if record is not None:
            os.kill(record.pid, signal.SIGTERM)
            deadline = time.monotonic() + 20
            while is_alive(record.pid) and time.monotonic() < deadline:
                time.sleep(0.1)
        shutil.rmtree(root, ignore_errors=True)


def _notebook() -> str:
    import nbformat

    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    for number, (source, tags) in enumerate(CELLS):
        cell = nbformat.v4.new_code_cell(source, metadata={"tags": tags} if tags else {})
        cell["id"] = f"cell-{number}"
        node.cells.append(cell)
    return str(nbformat.writes(node))


def ours(made: Workspace, rows: int) -> dict[str, float]:
    """Evaluate once by the promotion's own stage; return seconds."""
    from toolkit.app.workbench import open_workbench
    from toolkit.document import Notebook
    from toolkit.evaluation import EvaluationSet
    from toolkit.promotion.asking import Asking
    from toolkit.promotion.candidate import Candidate
    from toolkit.promotion.evidence import evaluation_log
    from toolkit.promotion.locking import Surroundings
    from toolkit.promotion.recall import remember
    from toolkit.promotion.trials import evaluate
    from toolkit.values import Environment, SystemClock

    with open_workbench(made.root) as bench:
        notebook = Notebook.read(made.root / NOTEBOOK)
        candidate = Candidate(
            "numbers",
            notebook,
            notebook.normalised(),
            NOTEBOOK,
            "bench",
            bench.governance.bundle(Environment.PRODUCTION),
            {},
            Surroundings({"kind": "workspace"}),
        )
        chosen = EvaluationSet.load(made.registry / "evaluations" / "numbers")
        memory = remember(candidate, bench.registry, bench.ledger, bench.governance, SystemClock())
        bench.tracking.store.experiment("warm")  # its tables are made, MLflow is imported
        started = time.monotonic()
        came = evaluate(Asking(candidate, chosen, memory), bench.runner, bench.ledger)
        evaluation, answered = came.evaluation, came.answered
        judged = time.monotonic()
        assert answered.report is not None
        assert len(evaluation.rows) == rows
        assert evaluation.scores["correct"].hits == rows, came.stage.summary
        log = evaluation_log(chosen, evaluation, came.verdicts, answered)
        mlflow_run_id = bench.tracking.log_evaluation(answered.report.run, log)
        shown = time.monotonic()
        _check(bench.tracking.store.uri, mlflow_run_id, rows)
        kernel = answered.report.seconds
    return {"total": shown - started, "kernel": kernel, "shown": shown - judged}


def promote(made: Workspace, *options: str) -> tuple[float, dict[str, Any]]:
    """Promote by the command line; return seconds and what it says."""
    command = [sys.executable, "-m", "toolkit", "promote", NOTEBOOK, "--json", *options]
    started = time.monotonic()
    done = subprocess.run(command, cwd=made.root, capture_output=True, text=True, check=False)
    took = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return took, json.loads(done.stdout)


# -- the peer --------------------------------------------------------------------------------------


def peer(rows: int) -> float:
    """Let ``mlflow.genai.evaluate`` do the same; return seconds."""
    folder = tempfile.mkdtemp(prefix="bench-peer-")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.evaluation", "--peer", folder, "--rows", str(rows)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **AT_ITS_BEST},
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return float(done.stdout.strip().splitlines()[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_peer(folder: Path, rows: int) -> float:
    import mlflow
    from mlflow.genai.scorers import scorer

    def correct(outputs: Any, expectations: dict[str, Any]) -> bool:
        return bool(outputs == expectations["expected"])

    def spell(number: int) -> str:
        return str(number)

    os.chdir(folder)  # where its artifacts would go
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    mlflow.set_tracking_uri(uri)
    mlflow.set_experiment("numbers")
    data = [{"inputs": {"number": n}, "expectations": {"expected": str(n)}} for n in range(rows)]
    started = time.monotonic()
    result = mlflow.genai.evaluate(data=data, scorers=[scorer(correct)], predict_fn=spell)
    mlflow.flush_trace_async_logging()
    took = time.monotonic() - started
    _check(uri, result.run_id, rows)
    return took


def _check(uri: str, mlflow_run_id: str, rows: int) -> None:
    """Make sure that MLflow has a trace with its feedback for every row, and the mean."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    run = client.get_run(mlflow_run_id)
    assert run.data.metrics["correct/mean"] == 1.0, run.data.metrics
    found, token = 0, None
    while True:
        page = client.search_traces(
            locations=[run.info.experiment_id],
            run_id=mlflow_run_id,
            max_results=500,
            page_token=token,
            include_spans=False,
        )
        for trace in page:
            names = {a.name for a in trace.info.assessments}
            found += "correct" in names
        token = page.token
        if not token:
            break
    assert found == rows, f"{found} of {rows} rows can be seen"


def _stage(name: str, started: float) -> None:
    """Say on the error output which part is over: all of it takes minutes."""
    print(f"{name}: {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)


@dataclass(frozen=True, slots=True)
class Promoted:
    """Seconds of three promotions of one notebook: the first, unchanged, and sealed again."""

    first: float
    unchanged: float
    again: float


# -- all -------------------------------------------------------------------------------------------


def rounds_of(rows: int, rounds: int, started: float) -> tuple[dict[str, list[float]], Promoted]:
    """Let both sides evaluate in turn; return their seconds, and those of three promotions."""
    found: dict[str, list[float]] = {}
    promoted: Promoted | None = None
    for number in range(rounds):
        with workspace(rows) as made:
            run = [sys.executable, "-m", "toolkit", "run", NOTEBOOK, "--save", "--json"]
            subprocess.run(run, cwd=made.root, check=True, capture_output=True)
            for name, seconds in ours(made, rows).items():
                found.setdefault(name, []).append(seconds)
            if promoted is None:
                promoted = promotions(made)
        found.setdefault("peer", []).append(peer(rows))
        _stage(f"round {number + 1}", started)
    assert promoted is not None
    return found, promoted


def promotions(made: Workspace) -> Promoted:
    """Promote, promote what has not changed, and seal again what was measured."""
    first, told = promote(made)
    repeats = []
    for _ in range(_REPEATS):
        same, unchanged = promote(made)
        assert unchanged["unchanged"]
        repeats.append(same)
    again, sealed = promote(made, "--again")
    assert sealed["version"] == told["version"] + 1
    return Promoted(first, statistics.median(repeats), again)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", type=Path)
    chosen = parser.parse_args()
    if chosen.peer is not None:
        print(run_peer(chosen.peer, chosen.rows))
        return
    rows = chosen.rows
    found, promoted = rounds_of(rows, chosen.rounds, time.monotonic())
    mid = {name: statistics.median(seconds) for name, seconds in found.items()}
    where = (
        f"{rows} rows, trivial function, one scorer, SQLite, median of {chosen.rounds} alternating "
        f"rounds; {machine()}"
    )
    inside = f"{where}; of ours {mid['kernel']:.1f} s kernel, {mid['shown']:.1f} s MLflow"
    often = (
        f"promotion of {rows} cases by the command line, the unchanged one a median of {_REPEATS}; "
        f"{machine()}"
    )
    per_row = 1000 / rows
    publish(
        "evaluation",
        {
            "evaluation_row": figure(
                per_row * mid["total"],
                per_row * mid["peer"],
                "ms per row",
                inside,
                lower_is_better=True,
            ),
            "promotion_first": figure(promoted.first, None, "s", often),
            "promotion_unchanged": figure(
                100 * promoted.unchanged / promoted.first, None, "% of the first", often
            ),
            "promotion_again": figure(
                100 * promoted.again / promoted.first, None, "% of the first", often
            ),
        },
    )


if __name__ == "__main__":
    main()
