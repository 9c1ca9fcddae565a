"""The static check over 500 generated notebooks: seconds in all, per notebook, memory.

``python -m benchmarks.check [--count N]`` prints a table and writes ``results/check.json``.

The notebooks come from ``benchmarks/wild.py``: typical ones of 20 to 50 cells with outputs, and
magics, shell, other kernels, old formats, 4 MB outputs and damaged files.  Times of one notebook are
processor times of :func:`check_notebook` in one process, reading the file included; the first
notebook, which loads nbformat's schema, is left out of the percentiles and counted in the total.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.results import figure, machine, publish
from benchmarks.wild import notebooks
from toolkit.promotion.check import CheckCatalog, check_notebook


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(share * len(times)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    count = parser.parse_args().count
    catalog = CheckCatalog(
        tools={}, routes=frozenset({"default"}), sources=frozenset(), hosts=frozenset()
    )
    times: dict[str, list[float]] = defaultdict(list)
    refused, size, cpu = 0, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, (kind, data) in enumerate(notebooks(count)):
            path = Path(folder, f"{number}.ipynb")
            path.write_bytes(data)
            size += len(data)
            files.append((kind, path))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, used = time.perf_counter(), time.process_time()
        for kind, path in files:
            begin = time.process_time()
            report = check_notebook(path, catalog)
            times[kind].append((time.process_time() - begin) * 1e3)
            if any(found.rule == "check-failed" for found in report.findings):
                sys.exit(f"a rule failed on {kind} {path.name}")
            refused += not report.ok
        total, cpu = time.perf_counter() - started, time.process_time() - used
    every = [one for kind in times.values() for one in kind][1:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    about = f"{count} notebooks, {size / 1e6:.0f} MB, {refused} refused; {machine()}"
    figures = {
        "all notebooks": figure(total, None, "s", about, lower_is_better=True),
        "all notebooks, processor": figure(cpu, None, "s", about, lower_is_better=True),
        "typical, median": figure(percentile(times["typical"][1:], 0.5), None, "ms", about),
        "typical, p99": figure(percentile(times["typical"][1:], 0.99), None, "ms", about),
        "4 MB outputs, median": figure(percentile(times["4 MB outputs"], 0.5), None, "ms", about),
        "every kind, p99": figure(percentile(every, 0.99), None, "ms", about),
        "peak memory": figure(peak, None, "MB", about),
        "memory added by checking": figure(peak - before / 1024, None, "MB", about),
    }
    publish("check", figures)


if __name__ == "__main__":
    main()
