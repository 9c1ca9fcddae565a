"""``python -m benchmarks.agentdojo.replay --peers PYTHON [--suite NAME --registry DIR]``.

For each suite: every user task alone, and every user task with every injected task, each in a
production run of its own through a real gateway.  Prints a table and writes
``results/agentdojo.json``.  ``--registry DIR`` takes a registry (``tools.yaml``, ``people.yaml``,
``policies/production``) from elsewhere: that is how a suite is run with somebody else's policies.
``--describe NAME`` prints the beginning of a suite's ``tools.yaml``; see docs/agentdojo.md.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.agentdojo.describe import skeleton
from benchmarks.agentdojo.player import (
    ALLOWED,
    ASKED,
    DENIED,
    FAILED,
    HERE,
    Deed,
    Dojo,
    Episode,
    Player,
    gateway,
)
from benchmarks.results import figure, machine, publish
from toolkit.client import wire
from toolkit.errors import ToolkitError
from toolkit.ledger import Ledger
from toolkit.policy import PolicyBundle

SUITES = ("banking", "slack", "travel", "workspace")


def replay(dojo: Dojo, suite: str, registry: Path, *, explain: bool) -> dict[str, int]:
    """Play every episode of a suite and count."""
    tasks = dojo.ask("list")[suite]
    with gateway(registry) as workspace, Ledger.open(workspace.database_url) as ledger:
        player = Player(workspace, ledger, dojo, suite)
        alone = [
            player.play(task, None)
            for task in track(tasks["user_tasks"], f"{suite}: user tasks", transient=True)
        ]
        pairs = [(u, i) for u in tasks["user_tasks"] for i in tasks["injection_tasks"]]
        attacked = [
            player.play(*pair) for pair in track(pairs, f"{suite}: with injections", transient=True)
        ]
    if explain:
        _explain(alone, attacked)
    return count(alone, attacked)


def count(alone: list[Episode], attacked: list[Episode]) -> dict[str, int]:
    """Count verdicts by call, by task and by pair of a user's and an injected task."""
    calls = [verdict for episode in alone for verdict in episode.verdicts("user")]
    pairs = [episode for episode in attacked if episode.verdicts("injected")]
    read = [episode for episode in pairs if episode.read]
    under = [verdict for episode in attacked for verdict in episode.verdicts("user")]
    injected = [verdict for episode in pairs for verdict in episode.verdicts("injected")]
    denied = [e for e in pairs if {DENIED, FAILED} & set(e.verdicts("injected"))]
    return {
        "user_calls": len(calls),
        "user_calls_allowed": calls.count(ALLOWED),
        "user_calls_asked": calls.count(ASKED),
        "user_calls_denied": calls.count(DENIED) + calls.count(FAILED),
        "user_tasks": len(alone),
        "user_tasks_allowed": sum(set(e.verdicts("user")) <= {ALLOWED} for e in alone),
        "user_tasks_allowed_or_asked": sum(
            set(e.verdicts("user")) <= {ALLOWED, ASKED} for e in alone
        ),
        "user_tasks_solved_by_agentdojos_check": sum(e.useful for e in alone),
        "user_calls_under_attack": len(under),
        "user_calls_under_attack_allowed": under.count(ALLOWED),
        "pairs": len(pairs),
        "pairs_stopped": sum(e.stopped for e in pairs),
        "pairs_stopped_by_a_denial": len(denied),
        "pairs_harmed_by_agentdojos_check": sum(e.harmed for e in pairs),
        "pairs_read": len(read),
        "pairs_read_stopped": sum(e.stopped for e in read),
        "pairs_read_harmed_by_agentdojos_check": sum(e.harmed for e in read),
        "injected_calls": len(injected),
        "injected_calls_allowed": injected.count(ALLOWED),
        "injected_calls_asked": injected.count(ASKED),
        "injected_calls_denied": injected.count(DENIED) + injected.count(FAILED),
    }


def _explain(alone: list[Episode], attacked: list[Episode]) -> None:
    """Print what was not allowed to users, and what was allowed to injected texts."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for episode in alone:
        for deed in episode.deeds:
            if deed.verdict != ALLOWED:
                console.print(f"{episode.name}: {_line(deed)}: {deed.reason}")
        if not episode.useful and set(episode.verdicts("user")) <= {ALLOWED}:
            console.print(f"{episode.name}: allowed, and not solved by AgentDojo's check")
    told: Counter[str] = Counter()
    for episode in attacked:
        if not episode.verdicts("injected") or (episode.stopped and not episode.harmed):
            continue
        read = "read" if episode.read else "not read"
        console.print(
            f"passed: {episode.name} ({read}{', harmed' if episode.harmed else ''}"
            f"{', stopped' if episode.stopped else ''})"
        )
        told.update(_line(deed) for deed in episode.deeds if deed.phase == "injected")
    for line, times in told.most_common():
        console.print(f"{times} x {line}")


def _line(deed: Deed) -> str:
    given = ", ".join(
        f"{name}={str(value)[:60]!r} [{deed.origins.get(name, '?')}]"
        for name, value in deed.arguments.items()
    )
    return f"{deed.phase} {deed.verdict} {deed.tool}({given})"


def check(registry: Path) -> None:
    """Refuse a registry with faults before anything starts.

    Raises:
        InvalidFile, NotFound: See the classes.
    """
    PolicyBundle.load(registry / "policies" / "production")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentdojo.replay")
    parser.add_argument("--peers", type=Path, required=True, help="the Python that has agentdojo")
    parser.add_argument("--suite", action="append", choices=SUITES)
    parser.add_argument("--registry", type=Path, help="registry of the one suite that is named")
    parser.add_argument("--explain", action="store_true", help="list what was denied, what passed")
    parser.add_argument(
        "--describe", choices=SUITES, help="print the beginning of a suite's tools.yaml, and end"
    )
    options = parser.parse_args()
    options.suite = options.suite or ["banking", "slack"]
    if options.registry and len(options.suite) != 1:
        parser.error("--registry needs exactly one --suite")
    kept_back = sorted(set(options.suite) - {"banking", "slack"})
    if kept_back and not options.registry and not options.describe:
        parser.error(f"there is no policy for {', '.join(kept_back)}: write one, give --registry")
    return options


def main() -> None:
    options = _options()
    os.environ.pop(wire.ENV_SOCKET, None)
    dojo = Dojo(options.peers)
    try:
        if options.describe:
            print(skeleton(options.describe, dojo.ask("list")[options.describe]["tools"]), end="")
            return
        registries = {suite: options.registry or HERE / suite for suite in options.suite}
        for registry in registries.values():
            check(registry)
        counts = {
            suite: replay(dojo, suite, registry, explain=options.explain)
            for suite, registry in registries.items()
        }
    except ToolkitError as error:
        raise SystemExit(str(error)) from None
    finally:
        dojo.close()
    _tell(counts, keep=not options.registry)


def _tell(counts: dict[str, dict[str, int]], *, keep: bool) -> None:
    table = Table("figure", *counts)
    results: dict[str, Any] = {}
    for name in next(iter(counts.values())):
        table.add_row(name.replace("_", " "), *(str(each[name]) for each in counts.values()))
        for suite, each in counts.items():
            where = f"AgentDojo 0.1.35 {suite} v1.2.2; {machine()}"
            results[f"{suite}_{name}"] = figure(each[name], None, "count", where)
    Console().print(table)
    # The committed figures are those of the committed policies, of both suites.
    if keep and set(counts) == {"banking", "slack"}:
        publish("agentdojo", results)


if __name__ == "__main__":
    main()
