"""What a kernel pays to have the toolkit, against MLflow: seconds and memory.

``python -m benchmarks.imports [--rounds N]`` prints a table and writes ``results/imports.json``.

Every figure comes from a fresh interpreter that imports one thing and tells how long that took and
by how much it grew (resident memory, from /proc/self/statm).  One round starts each interpreter
once, in turn, so that a busy moment of the machine hits all of them; figures are medians.  A first
round, which fills the page cache and writes byte code, is not counted.

* ``toolkit`` is what ``import toolkit`` costs in a script that may not use it at all.
* ``connected`` is everything up to the first call: the client and what carries its requests over a
  unix socket; what ``toolkit.connect()`` does apart from talking.
* ``extension`` is what ``%load_ext toolkit`` imports on top of a running IPython.
* The peer is ``import mlflow``, which an agent traced by MLflow needs in its kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys

from benchmarks.results import figure, machine, publish

# IPython is in every kernel before a notebook's first cell: its import is nobody's cost.
_IPYTHON = "import IPython.core.interactiveshell, IPython.display"
# The socket does not exist: a transport connects at its first request.
_CONNECTED = (
    "import toolkit; toolkit.connect, toolkit.model, toolkit.tool; "
    "from toolkit.client import Connection; "
    "Connection('/nowhere')._carried()"
)
CASES = {
    "toolkit": ("", "import toolkit"),
    "connected": ("", _CONNECTED),
    "extension": (_IPYTHON, "import toolkit.magics; toolkit.load_ipython_extension; " + _CONNECTED),
    "mlflow": ("", "import mlflow"),
    "mlflow after IPython": (_IPYTHON, "import mlflow"),
}
PEERS = {"toolkit": "mlflow", "connected": "mlflow", "extension": "mlflow after IPython"}

_PROBE = """
import json, resource, sys, time
{before}
def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * resource.getpagesize()
known, grown, start = set(sys.modules), resident(), time.perf_counter()
{what}
seconds = time.perf_counter() - start
print(json.dumps([seconds, resident() - grown, len(set(sys.modules) - known)]))
"""


def probe(before: str, what: str) -> tuple[float, float, int]:
    """Run one fresh interpreter; return (milliseconds, MiB, modules)."""
    done = subprocess.run(
        [sys.executable, "-c", _PROBE.format(before=before or "pass", what=what)],
        stdout=subprocess.PIPE,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith(("TOOLKIT_", "MLFLOW_"))},
    )
    seconds, size, modules = json.loads(done.stdout.splitlines()[-1])
    return seconds * 1000, size / 2**20, modules


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.imports", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found: dict[str, list[tuple[float, float, int]]] = {name: [] for name in CASES}
    for number in range(options.rounds + 1):
        for name, (before, what) in CASES.items():
            result = probe(before, what)
            if number:
                found[name].append(result)

    def median(name: str, column: int) -> float:
        return statistics.median(result[column] for result in found[name])

    conditions = (
        f"fresh interpreters, warm page cache, median of {options.rounds} interleaved; {machine()}"
    )
    figures = {}
    for name, peer in PEERS.items():
        for label, column, unit, digits in (
            ("", 0, "ms of import", 1),
            ("_memory", 1, "MiB resident", 1),
            ("_modules", 2, "modules loaded", 0),
        ):
            figures[f"import_{name}{label}"] = figure(
                median(name, column), median(peer, column), unit, conditions,
                lower_is_better=True, digits=digits,
            )  # fmt: skip
    publish("imports", figures)


if __name__ == "__main__":
    main()
