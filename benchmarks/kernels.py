"""What it takes to run a small notebook: papermill's command line against ours, cold and warm.

``python -m benchmarks.kernels [--rounds N]`` prints a table and writes ``results/kernels.json``.

The notebook has three cells: ``import pandas``, a frame, a sum.  A round runs it once in each way,
in turn, so that a busy moment of the machine hits all of them; figures are medians, and a first
round is not counted.

* The peer is ``papermill IN OUT`` from start to end, as a scheduler would call it.
* ``warm`` and ``cold`` are ``toolkit.execution.execute`` in a process that is up already, as in a
  worker: preparing, kernel, cells, the notebook on disk, the kernel's end.  No ledger, no gateway,
  no MLflow: those cost what they cost in every way of starting.
* ``warm_L2`` is a warm kernel in an enclosure; left out where bubblewrap cannot make one.
* Runs per minute are what two such processes reach together; the peer has two commands at once.
* Memory is what nobody else shares (USS of smaps): of a zygote, of a waiting kernel that has
  imported pandas, of its keeper, and of papermill's stock kernel as the peer.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import nbformat
import psutil

from benchmarks.results import figure, machine, publish
from toolkit.errors import ToolkitError
from toolkit.execution import Execution, execute
from toolkit.kernels import KernelPlan, Zygote, stop_zygotes
from toolkit.values import Environment, IsolationLevel, RunKind, RunRecord, RunState, new_id

_CELLS = (
    "import pandas as pd",
    "frame = pd.DataFrame({'a': range(100)}); frame.head()",
    "print(frame.a.sum())",
)
# The kernel tells about itself while it waits.
_MEMORY = """
import json, pathlib, psutil
own = psutil.Process()
print(json.dumps([own.memory_full_info().uss, own.parent().memory_full_info().uss]))
"""
_MIB = 2**20
_PARALLEL = 2


def notebook(*cells: str) -> bytes:
    node = nbformat.v4.new_notebook()
    node.metadata["kernelspec"] = {"name": "python3", "display_name": "p", "language": "python"}
    node.cells = [nbformat.v4.new_code_cell(cell) for cell in cells]
    return str(nbformat.writes(node)).encode()


def ours(home: Path, plan: KernelPlan, cells: tuple[str, ...] = _CELLS) -> Path:
    """Run the notebook; return the executed one."""
    run = RunRecord(new_id("run"), RunKind.RUN, Environment.PRODUCTION, "bench")
    work = home / "work"
    work.mkdir(exist_ok=True)
    ending = execute(
        Execution(
            run=run,
            ledger="benchmark",
            notebook=notebook(*cells),
            parameters={},
            folder=home / run.run_id,
            gateway_socket=None,
            token="token-of-a-benchmark",
            timeout_s=120,
            cwd=work,
            kernel=plan,
        )
    )
    if ending.state is not RunState.SUCCEEDED or (plan.warm and ending.notes):
        sys.exit(f"a run did not go as it should: {ending.message} {ending.notes}")
    return ending.output


def papermill(home: Path, name: str = "out") -> None:
    source = home / "in.ipynb"
    source.write_bytes(notebook(*_CELLS))
    subprocess.run(
        [sys.executable, "-m", "papermill", "--no-progress-bar", str(source), str(home / name)],
        check=True,
        capture_output=True,
        cwd=home,
    )


def seconds(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def per_minute_ours(home: Path, plan: KernelPlan, count: int) -> float:
    """Runs per minute of two processes; each says when it is up, and starts when told."""
    command = [sys.executable, "-m", "benchmarks.kernels", "--loop", str(count), str(home)]
    command += [json.dumps(plan.to_config())]
    loops = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(_PARALLEL)
    ]
    for loop in loops:
        assert loop.stdout
        loop.stdout.readline()
    started = time.perf_counter()
    for loop in loops:
        assert loop.stdin
        loop.stdin.close()
    if sum(abs(loop.wait()) for loop in loops):
        sys.exit("a process of runs failed")
    return 60 * count * _PARALLEL / (time.perf_counter() - started)


def per_minute_papermill(home: Path, count: int) -> float:
    with ThreadPoolExecutor(_PARALLEL) as pool:
        took = seconds(
            lambda: list(pool.map(lambda n: papermill(home, f"out{n}"), range(count * _PARALLEL)))
        )
    return 60 * count * _PARALLEL / took


def loop(count: int, home: Path, config: str) -> None:
    plan = KernelPlan.from_config(json.loads(config))
    ours(home, plan)
    print("up", flush=True)
    sys.stdin.read()
    for _ in range(count):
        ours(home, plan)


def memory(home: Path, plan: KernelPlan) -> tuple[float, float]:
    """Return MiB of a kernel with pandas and of its parent."""
    node = nbformat.read(ours(home, plan, (*_CELLS, _MEMORY)), as_version=4)
    kernel, parent = json.loads(node.cells[-1].outputs[0].text)
    return kernel / _MIB, parent / _MIB


def measure(home: Path, rounds: int) -> None:
    plans = {"cold": KernelPlan(), "warm": KernelPlan(warm=True, zygotes=home / "z", wait_s=60)}
    isolated = KernelPlan(
        level=IsolationLevel.L2, warm=True, zygotes=plans["warm"].zygotes, wait_s=60
    )
    try:
        ours(home, isolated)
        plans["warm_L2"] = isolated
    except (SystemExit, ToolkitError) as error:
        print(f"without L2: {error}")
    found: dict[str, list[float]] = {name: [] for name in (*plans, "papermill")}
    for number in range(rounds + 1):
        took = {name: seconds(partial(ours, home, plan)) for name, plan in plans.items()}
        took["papermill"] = seconds(lambda: papermill(home))
        for name, value in took.items():
            if number:
                found[name].append(value)
    conditions = f"three cells with pandas, median of {rounds} interleaved; {machine()}"
    figures = {}
    peer = statistics.median(found.pop("papermill"))
    for name, values in found.items():
        figures[f"run_{name}"] = figure(
            statistics.median(values), peer, "s", conditions, lower_is_better=True
        )
    rate = f"{_PARALLEL} processes at once, {rounds} runs each; {machine()}"
    figures["runs_per_minute_warm"] = figure(
        per_minute_ours(home, plans["warm"], rounds),
        per_minute_papermill(home, rounds), "runs", rate, digits=0,
    )  # fmt: skip
    kernel, keeper = memory(home, plans["warm"])
    stock, _ = memory(home, plans["cold"])
    sizes = f"unique set size, one sample; {machine()}"
    figures["memory_kernel"] = figure(kernel, stock, "MiB", sizes, lower_is_better=True, digits=1)
    figures["memory_keeper"] = figure(keeper, None, "MiB", sizes, digits=1)
    figures["memory_zygote"] = figure(zygote_mib(plans["warm"]), None, "MiB", sizes, digits=1)
    publish("kernels", figures)


def zygote_mib(plan: KernelPlan) -> float:
    assert plan.zygotes
    pids = [Zygote.pid_in(path.parent) for path in plan.zygotes.glob("*/socket")]
    return max(psutil.Process(pid).memory_full_info().uss for pid in pids if pid) / _MIB


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--loop", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.loop:
        count, folder, config = options.loop
        return loop(int(count), Path(folder), config)
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        measure(home, options.rounds)
    finally:
        stop_zygotes(home / "z")
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()
