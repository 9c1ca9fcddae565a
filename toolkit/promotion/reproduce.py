"""Reproduce: nbval runs the notebook in a fresh kernel, answered from the sandbox journal.

The journal is the last sandbox session or trial of this notebook.  Every call of the fresh
kernel must find its record there, so the step needs no model and no key, and the outputs must be
the ones that are saved in the notebook.  What nbval was told not to compare is listed in the
evidence; a cell that it was told not to run refuses the notebook: nobody has seen what it does.
"""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from toolkit.client import wire
from toolkit.document import Notebook
from toolkit.kernels import KernelPlan, kernel_spec, write_kernel_spec
from toolkit.ledger import Ledger
from toolkit.promotion.check import Finding
from toolkit.promotion.recall import Memory, Source
from toolkit.promotion.stages import Stage, finding
from toolkit.values import (
    Cause,
    Clock,
    Environment,
    RunKind,
    RunRecord,
    RunState,
    SystemClock,
    digest_bytes,
    new_id,
)

__all__ = ["Reproduce", "Reproduction", "reproduce"]

# JUnit's XML cannot hold the escape character; pytest writes it as text.
_ANSI = re.compile(r"(?:\x1b|#x1B)\[[0-9;]*[A-Za-z]")
_CELL = re.compile(r"Cell (\d+)")
# nbval's own words (https://nbval.readthedocs.io): a tag, or a comment of a line of its own.
_NOISE_TAGS = frozenset({"nbval-ignore-output", "pytest-validate-ignore-output"})
_NOISE = re.compile(
    r"^\s*#[#\s]*(?:NBVAL_IGNORE_OUTPUT|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE
)
_KEEP = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME")
_JOURNALS = (RunKind.SESSION, RunKind.TRIAL)
_KERNEL = "toolkit"
_SANITIZE = Path(__file__).with_name("nbval_sanitize.cfg")


@dataclass(frozen=True)
class Reproduction:
    """What the step needs.

    Attributes:
        path: The notebook file; ``notebook`` is what was read from it.
        name: Workspace-relative path, as sessions recorded it.
        user: Who promotes.
        cell_timeout_s: Seconds for one cell.
        timeout_s: Seconds for all.
        folder: Where nbval's report goes.
        kernel: How the kernel is started.
        python: Returns the interpreter of the notebook's kernel; ``None``: this process's own.
    """

    path: Path
    notebook: Notebook
    name: str
    user: str
    folder: Path
    cell_timeout_s: float = 300.0
    timeout_s: float = 1800.0
    kernel: KernelPlan = field(default_factory=KernelPlan)
    python: Callable[[], Path] | None = None


Reproduce = Callable[["Reproduction", Ledger, Callable[[], str], Memory, Clock], Stage]
"""What makes the step: :func:`reproduce`, or what stands in for it."""


def reproduce(
    wanted: Reproduction,
    ledger: Ledger,
    gateway: Callable[[], str],
    memory: Memory,
    clock: Clock | None = None,
) -> Stage:
    """Run the step and return it as a stage; the same file and journal are not compared twice."""
    started = time.monotonic()
    source = find_source(ledger, wanted.name)
    if source is None:
        return _no_journal(wanted, time.monotonic() - started)
    key = memory.key(
        "reproduce",
        file=digest_bytes(wanted.path.read_bytes()),
        journal=[source.run_id, ledger.last_seq(source.run_id)],
    )
    noise = declared_noise(wanted.notebook)
    for earlier in memory.find(key):
        if earlier.run.kind is RunKind.REPRODUCTION:
            memory.note(key, [earlier.run.run_id])
            return _reproduced_before(earlier, source, noise, time.monotonic() - started)
    token = secrets.token_urlsafe(32)
    run = ledger.create_run(
        RunRecord(
            run_id=new_id("reproduction"),
            kind=RunKind.REPRODUCTION,
            environment=Environment.SANDBOX,
            user=wanted.user,
            state=RunState.RUNNING,
            notebook=wanted.name,
            source_run_id=source.run_id,
            token_digest=digest_bytes(token.encode()),
            started_us=(clock or SystemClock()).now_us(),
        )
    )
    with _ended_by_ctrl_c(ledger, run.run_id, clock or SystemClock()):
        report, output = _run_nbval(wanted, gateway(), run.run_id, token)
    findings, cells = _read_report(report, output, wanted.notebook)
    passed = not findings
    ledger.update_run(
        run.run_id,
        state=RunState.SUCCEEDED if passed else RunState.FAILED,
        ended_us=(clock or SystemClock()).now_us(),
    )
    if passed:
        memory.note(key, [run.run_id])
    summary = (
        f"{cells} cells gave the saved outputs{_but_for(noise)}, answered from {source.run_id}"
        if passed
        else f"{len(findings)} of {cells} cells differ from the saved notebook"
    )
    return Stage(
        "reproduce",
        passed,
        summary,
        tuple(findings),
        time.monotonic() - started,
        {"run_id": run.run_id, "journal": source.run_id, "cells": cells, "noise": noise},
    )


@contextmanager
def _ended_by_ctrl_c(ledger: Ledger, run_id: str, clock: Clock) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        ended_us = clock.now_us()
        ledger.update_run(run_id, state=RunState.CANCELLED, cause=Cause.SIGNAL, ended_us=ended_us)
        raise


def declared_noise(notebook: Notebook) -> list[int]:
    """Return the numbers of the cells whose outputs nbval is told not to compare."""
    return [
        cell.number
        for cell in notebook.cells
        if cell.kind == "code"
        and (not _NOISE_TAGS.isdisjoint(cell.tags) or _NOISE.search(cell.source))
    ]


def _but_for(noise: list[int]) -> str:
    if not noise:
        return ""
    cells = ", ".join(map(str, noise[:8])) + (" …" if len(noise) > 8 else "")
    return f" but for declared noise (cell{'s' if len(noise) > 1 else ''} {cells})"


def find_source(ledger: Ledger, name: str) -> RunRecord | None:
    """Return the newest sandbox session or trial of the notebook that recorded calls."""
    runs = [run for kind in _JOURNALS for run in ledger.runs(kind=kind, limit=1000)]
    for run in sorted(runs, key=lambda run: run.created_us, reverse=True):
        usable = run.notebook == name and run.state is not RunState.FAILED
        if usable and ledger.totals(run.run_id).calls:
            return run
    return None


def _reproduced_before(
    earlier: Source, journal: RunRecord, noise: list[int], seconds: float
) -> Stage:
    return Stage(
        "reproduce",
        passed=True,
        summary=f"gave the saved outputs{_but_for(noise)}, answered from {journal.run_id}; "
        f"{earlier.sentence}",
        seconds=seconds,
        facts={
            "run_id": earlier.run.run_id,
            "journal": journal.run_id,
            "noise": noise,
            "cached": earlier.to_json(),
        },
    )


def _no_journal(wanted: Reproduction, seconds: float) -> Stage:
    fault = finding(
        "reproduce.no-journal",
        f"no sandbox run of {wanted.name} is recorded",
        fix=f"run it once: toolkit run {wanted.name} --save (or Run All in JupyterLab, and save)",
        why="the saved outputs can only be reproduced from recorded calls",
    )
    return Stage(
        "reproduce", passed=False, summary=fault.message, findings=(fault,), seconds=seconds
    )


def _run_nbval(wanted: Reproduction, path: str, run_id: str, token: str) -> tuple[Path, str]:
    report = wanted.folder / "nbval.xml"
    report.unlink(missing_ok=True)
    config = wanted.folder / "pytest.ini"
    config.write_text("[pytest]\n", "utf-8")
    environment = {name: os.environ[name] for name in _KEEP if name in os.environ}
    environment |= {wire.ENV_SOCKET: path, wire.ENV_TOKEN: token, wire.ENV_RUN: run_id}
    environment["PYTHONDONTWRITEBYTECODE"] = "1"
    environment["JUPYTER_PATH"] = str(_write_kernel(wanted))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-c",
        str(config),
        f"--rootdir={wanted.folder}",
        "-p",
        "no:cacheprovider",
        "--nbval",
        f"--nbval-kernel-name={_KERNEL}",
        f"--nbval-sanitize-with={_SANITIZE}",
        f"--nbval-cell-timeout={wanted.cell_timeout_s:g}",
        f"--junitxml={report}",
        str(wanted.path.resolve()),
    ]
    try:
        done = subprocess.run(
            command,
            cwd=wanted.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=wanted.timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return report, f"nbval did not finish within {wanted.timeout_s:.0f} s"
    return report, f"{done.stdout}\n{done.stderr}"


def _write_kernel(wanted: Reproduction) -> Path:
    """Write the specification of the notebook's kernel; return where to find it."""
    python = Path(sys.executable) if wanted.python is None else wanted.python()
    data = wanted.folder / "jupyter"
    write_kernel_spec(data / "kernels" / _KERNEL, kernel_spec(python, wanted.kernel))
    return data


def _read_report(report: Path, output: str, notebook: Notebook) -> tuple[list[Finding], int]:
    """Turn nbval's JUnit report into findings with the notebook's own cell numbers."""
    try:
        cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - we had it written
    except (OSError, ET.ParseError):
        last = next((x for x in reversed(output.splitlines()) if x.strip()), "no output")
        return [_broken(_ANSI.sub("", last)[:300])], 0
    code = [cell.number for cell in notebook.cells if cell.kind == "code"]
    findings = []
    for case in cases:
        match = _CELL.search(case.get("name") or "")
        number = int(match[1]) if match else None
        place = code[number] if number is not None and number < len(code) else None
        if case.find("skipped") is not None:
            findings.append(_skipped(place))
        fault = case.find("failure") if case.find("failure") is not None else case.find("error")
        if fault is None:
            continue
        findings.append(_differs(place, _ANSI.sub("", fault.text or fault.get("message") or "")))
    if not cases:
        said = [line for line in output.splitlines() if line.startswith("ERROR")]
        findings.append(_broken(said[0] if said else "it found no cell"))
    return findings, len(cases)


def _broken(reason: str) -> Finding:
    return finding(
        "reproduce.nbval",
        f"nbval did not run: {reason}",
        fix="run the notebook from top to bottom in the sandbox, then promote again",
    )


def _differs(cell: int | None, text: str) -> Finding:
    return finding(
        "reproduce.output",
        f"the output is not the saved one: {_difference(text)}",
        fix="save the notebook after a clean run from top to bottom, or tag the cell "
        "`nbval-ignore-output` if the difference is meant",
        why="what is promoted must be what was seen",
        cell=cell,
    )


def _skipped(cell: int | None) -> Finding:
    return finding(
        "reproduce.skipped",
        "nbval was told not to run the cell (`nbval-skip`), so nothing of it was reproduced",
        fix="take the tag or the comment NBVAL_SKIP away; for an output that differs each time "
        "use `nbval-ignore-output`",
        why="production runs every cell",
        cell=cell,
    )


def _difference(text: str) -> str:
    """Return the part of nbval's report that says what differs, on one line."""
    head, _, tail = text.partition("Traceback:")
    lines = [line.strip() for line in (tail or head).splitlines() if line.strip()]
    if "caused an exception" in head:
        lines = lines[-1:]
    else:
        lines = [line for line in lines if not line.startswith(("assert reference", "- ", "+ "))]
        lines = [f"{line} (saved == now)" if "' == '" in line else line for line in lines]
    return " | ".join(lines[:6])[:600] or "nbval does not say how"
