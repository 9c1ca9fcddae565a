"""The whole story on the embedded defaults, told step by step with the commands a person types.

Every step is the real command in a child process, so the demo shows what a user will see and
fails where a user would fail.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from toolkit.app.pages import Pages
from toolkit.errors import InfrastructureError, UsageError
from toolkit.gateway import stop_gateway
from toolkit.ledger import Ledger
from toolkit.settings import find_workspace, open_workspace
from toolkit.tracing import MlflowServer
from toolkit.values import new_id

__all__ = ["run_demo"]

_FIRST, _SECOND = "notebooks/licence_review_v1.ipynb", "notebooks/licence_review.ipynb"
_JOB = "licence-review"
_COPIED = ("toolkit.toml", "registry", "notebooks")


@dataclass
class _Story:
    """What happened so far."""

    root: Path
    console: Console
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def step(self, title: str, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Run one command, show it with its time, and return its JSON.

        Raises:
            InfrastructureError: It ended otherwise than the story says.
        """
        command = " ".join(("toolkit", *arguments))
        started = time.monotonic()
        with self.console.status(f"{title}  [dim]{command}[/]"):
            done = subprocess.run(
                [sys.executable, "-m", "toolkit", *arguments, "--json"],
                cwd=self.root,
                capture_output=True,
                text=True,
                check=False,
            )
        took = time.monotonic() - started
        mark = "[green]✓[/]" if done.returncode == expect else "[red]✗[/]"
        self.console.print(f"{mark} {title}  [dim]{command}  {took:.1f} s[/]", soft_wrap=True)
        if done.returncode != expect:
            raise InfrastructureError(
                f"the demo stopped: `{command}` ended with {done.returncode}, not {expect}",
                where=str(self.root),
                next_step=(done.stdout + done.stderr).strip()[-1500:] or "run the command by hand",
            )
        answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
        return answer

    def note(self, what: str, result: str, look: str = "") -> None:
        self.rows.append((what, result, look))


def run_demo(folder: Path | None, *, limit: int, keep: bool) -> int:
    """Tell the story and return the exit code.

    Args:
        folder: Where; default: a fresh folder under ``.toolkit/``.
        limit: Packages that the job reviews per run.
        keep: Leave MLflow's UI running.

    Raises:
        UsageError: The example is not here.
        InfrastructureError: A step ended otherwise than told.
    """
    console = Console()
    started = time.monotonic()
    root = _copy_example(folder)
    story = _Story(root, console)
    workspace = open_workspace(root)
    console.print(f"[bold]licence review[/], from a notebook to a governed job, in {root}")
    server = MlflowServer(workspace)
    try:
        with console.status("starting MLflow's UI"):
            url = server.start()
        _tell(story, limit)
        _finish(story, Pages(workspace), url, time.monotonic() - started, keep=keep)
    finally:
        stop_gateway(workspace.state)
        if not keep:
            server.stop()
    return 0


def _copy_example(folder: Path | None) -> Path:
    source = find_workspace()
    if not (source / _FIRST).is_file() or not (source / _SECOND).is_file():
        raise UsageError(
            f"the example notebooks are not in {source / 'notebooks'}",
            next_step="run the demo in a clone of the repository: make demo",
        )
    root = (folder or source / ".toolkit" / "demo" / new_id("story")).resolve()
    root.mkdir(parents=True, exist_ok=True)
    for name in _COPIED:
        if (source / name).is_dir():
            ignored = shutil.ignore_patterns("jobs", "log", "*.lock", ".ipynb_checkpoints")
            shutil.copytree(source / name, root / name, ignore=ignored)
        else:
            shutil.copyfile(source / name, root / name)
    return root


def _tell(story: _Story, limit: int) -> None:
    story.step("check both notebooks", "check", "notebooks")
    story.step("run the first version in the sandbox", "run", _FIRST, "--save")
    refused = story.step(
        "promote it: refused by the gate", "promote", _FIRST, "--name", _JOB, expect=1
    )
    gate = next(g for g in refused["gates"] if not g["passed"])
    story.note("first version", f"refused: {gate['sentence']}", refused["report"])
    story.step("run the second version in the sandbox", "run", _SECOND, "--save")
    promoted = story.step("promote it: passes", "promote", _SECOND, "--name", _JOB)
    passed = promoted["gates"][0]
    version = f"{_JOB}@{promoted['version']}"
    story.note("second version", f"{version}: {passed['sentence']}", promoted["report"])
    one = story.step("run it", "run", f"{_JOB}@production", "-p", f"limit={limit}")
    _note_run(story, one)
    # A small change makes the next version, so that there is something to compare.
    _widen_allowed(story.root / _SECOND)
    story.step("change a default, run in the sandbox", "run", _SECOND, "--save")
    again = story.step("promote the change", "promote", _SECOND, "--name", _JOB)
    story.note("changed version", f"{_JOB}@{again['version']}", again["report"])
    two = story.step("run it", "run", f"{_JOB}@production", "-p", f"limit={limit}")
    _note_run(story, two)
    story.step("see what differs", "registry", "diff", version, f"{_JOB}@{again['version']}")
    story.step(
        "schedule it", "schedule", "add", f"{_JOB}@production", "--cron", "0 3 * * *",
        "--tz", "Europe/Berlin", "-p", f"limit={limit}",
    )  # fmt: skip
    story.step("verify the registry", "registry", "verify")
    story.step("verify the ledger", "ledger", "verify")
    for name, link in again["links"].items():
        story.note(name, "in MLflow", link)


def _note_run(story: _Story, run: dict[str, Any]) -> None:
    counts = run["results"].get("counts", {})
    classes = ", ".join(f"{name} {count}" for name, count in counts.items())
    totals = run["totals"]
    story.note(
        f"run of {run['job']}@{run['version']}",
        f"{run['state']} in {run['seconds']:.1f} s · {classes} · {totals['calls']} calls, "
        f"{totals['input_tokens'] + totals['output_tokens']:,} tokens, "
        f"cost ${totals['cost_usd']}",
        run["url"] or run["run_id"],
    )


def _widen_allowed(path: Path) -> None:
    """Allow one more licence by default, as a person would in the parameters cell."""
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if "parameters" not in cell.get("metadata", {}).get("tags", ()):
            continue
        text = cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])
        cell["source"] = text.replace('"MIT"', '"MIT", "MPL-2.0"', 1)
    path.write_text(json.dumps(notebook, ensure_ascii=False, indent=1) + "\n", "utf-8")


def _finish(story: _Story, pages: Pages, url: str, seconds: float, *, keep: bool) -> None:
    workspace = pages.workspace
    ledger = Ledger.open(workspace.database_url, heads=workspace.ledger_heads)
    try:
        runs = [run for run in ledger.runs(job=_JOB, limit=50) if run.kind.value == "run"]
        compare = pages.compare(runs[:2])
    finally:
        ledger.close()
    if compare:
        story.note("compare the two runs", "in MLflow", compare)
    table = Table(title="what happened", title_justify="left", header_style="bold", box=None)
    table.add_column("step", no_wrap=True)
    table.add_column("result")
    for what, result, _ in story.rows:
        table.add_row(what, result)
    story.console.print(table)
    story.console.print("[bold]where to look[/]")
    for what, _, look in story.rows:
        if look:  # addresses are for copying: one per line, never folded
            story.console.print(f"  {what:<24} {look}", soft_wrap=True)
    story.console.print(f"[bold green]succeeded[/] in {seconds:.0f} s")
    story.console.print(
        f"MLflow  {url}" if keep else f"MLflow again  cd {story.root} && toolkit ui"
    )
    story.console.print(
        f"look further  cd {story.root} && toolkit runs · toolkit registry show {_JOB}@production"
        " · toolkit costs · toolkit lab",
        soft_wrap=True,
    )
