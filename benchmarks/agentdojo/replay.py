"""``python -m benchmarks.agentdojo.replay --peers PYTHON [--suite NAME --registry DIR]``.

For each suite: every user task alone, and every user task with every injected task, each in a
production run of its own through a real gateway.  Prints a table and writes
``results/agentdojo.json``.  ``--registry DIR`` takes a registry (``tools.yaml``,
``policies/production``) from elsewhere: that is how a suite is run with somebody else's policies.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.results import figure, machine, publish
from toolkit.client import Connection, wire
from toolkit.client.launch import ensure_gateway
from toolkit.errors import ToolkitError
from toolkit.gateway import stop_gateway
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.settings import Workspace, open_workspace
from toolkit.values import CallKind, Environment, RunKind, RunRecord, RunState, new_id

HERE = Path(__file__).parent
ALLOWED, ASKED, DENIED, FAILED = "allowed", "asked", "denied", "failed"


class Dojo:
    """AgentDojo in its own process."""

    def __init__(self, python: Path) -> None:
        self._process = subprocess.Popen(
            [str(python), str(HERE / "driver.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def ask(self, deed: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": deed, **arguments}) + "\n")
        self._process.stdin.flush()
        said: dict[str, Any] = json.loads(self._process.stdout.readline())
        if "failed" in said:
            sys.exit(f"AgentDojo failed: {said['failed']}")
        return said

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@dataclasses.dataclass
class Episode:
    """One user task, with or without an injected task: what policy said to each call.

    Attributes:
        user, injected: Verdicts in order.
        read: Whether a tool's answer held the injected text.
        calls: ``(phase, tool, verdict, reason)`` of each call.
    """

    name: str
    user: list[str] = dataclasses.field(default_factory=list)
    injected: list[str] = dataclasses.field(default_factory=list)
    read: bool = False
    calls: list[tuple[str, str, str, str]] = dataclasses.field(default_factory=list)


class Player:
    """Asks the gateway for each call of an episode, as a kernel would."""

    def __init__(self, workspace: Workspace, ledger: Ledger, dojo: Dojo, suite: str) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.dojo = dojo
        self.suite = suite

    def play(self, user_task: str, injection: str | None) -> Episode:
        scene = self.dojo.ask("start", suite=self.suite, user_task=user_task, injection=injection)
        episode = Episode(f"{user_task} {injection or ''}".strip())
        run = self._run(scene["prompt"])
        try:
            for call in scene["user_calls"]:
                episode.user.append(self._call(run, "user", call, episode, scene["goal"]))
            for call in scene["injected_calls"]:
                episode.injected.append(self._call(run, "injected", call, episode, scene["goal"]))
        finally:
            self.ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
            run.close()
        return episode

    def _run(self, prompt: str) -> Connection:
        token = new_token()
        self.ledger.create_run(
            RunRecord(
                run_id=new_id("run"),
                kind=RunKind.RUN,
                environment=Environment.PRODUCTION,
                user="emma",
                state=RunState.RUNNING,
                job=f"agentdojo-{self.suite}",
                version=1,
                parameters={"prompt": prompt},
                token_digest=token_digest(token),
            )
        )
        return Connection(str(self.workspace.socket), token=token).open()

    def _call(
        self, run: Connection, phase: str, call: dict[str, Any], episode: Episode, goal: str | None
    ) -> str:
        request = run.identify(CallKind.TOOL, call["tool"], call["arguments"], effect="read")
        verdict, reason = ALLOWED, ""
        try:
            reply = run.post(wire.BEGIN, request)
        except ToolkitError as error:
            verdict, reason = FAILED, str(error)
        else:
            verdict, reason = _verdict(reply)
        episode.calls.append((phase, call["tool"], verdict, reason))
        if verdict == ALLOWED:
            said = self.dojo.ask("call", tool=call["tool"], arguments=call["arguments"])
            answer = said["answer"] if said["error"] is None else {"error": said["error"]}
            episode.read = episode.read or bool(goal and goal in json.dumps(answer))
            run.post(
                wire.FINISH,
                {
                    "key": reply["key"],
                    "generation": reply["generation"],
                    "state": "ok",
                    "answer": answer,
                },
            )
        return verdict


def _verdict(reply: dict[str, Any]) -> tuple[str, str]:
    reasons = "; ".join(reply["decision"]["reasons"])
    if reply.get("waiting") or reply["decision"]["verdict"] == "ask":
        return ASKED, reasons
    if reply["outcome"] is not None and reply["outcome"]["state"] == "denied":
        return DENIED, reasons
    return ALLOWED, ""


@contextlib.contextmanager
def gateway(registry: Path) -> Iterator[Workspace]:
    """A workspace with this registry's tools and production policy, and its gateway."""
    root = Path(tempfile.mkdtemp(prefix="agentdojo-"))
    (root / "toolkit.toml").write_text('user = "emma"\n', "utf-8")
    shutil.copytree(registry, root / "registry")
    models = root / "registry" / "models.yaml"
    if not models.exists():
        models.write_text(
            "default_route: default\nproviders: {local: {kind: local}}\n"
            "routes: {default: {provider: local, model: SmolLM2-135M-Instruct, max_tokens: 16}}\n",
            "utf-8",
        )
    workspace = open_workspace(root)
    try:
        ensure_gateway(root)
        yield workspace
    finally:
        stop_gateway(workspace.state)
        shutil.rmtree(root, ignore_errors=True)


def replay(dojo: Dojo, suite: str, registry: Path, *, explain: bool) -> dict[str, Any]:
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
    return _count(alone, attacked)


def _count(alone: list[Episode], attacked: list[Episode]) -> dict[str, Any]:
    verdicts = [verdict for episode in alone for verdict in episode.user]
    real = [episode for episode in attacked if episode.injected]
    seen = [episode for episode in real if episode.read]
    injected = [verdict for episode in real for verdict in episode.injected]

    def stopped(episodes: list[Episode]) -> int:
        return sum(any(verdict != ALLOWED for verdict in e.injected) for e in episodes)

    return {
        "user_calls": len(verdicts),
        "user_calls_allowed": verdicts.count(ALLOWED),
        "user_calls_asked": verdicts.count(ASKED),
        "user_calls_denied": verdicts.count(DENIED) + verdicts.count(FAILED),
        "user_tasks": len(alone),
        "user_tasks_allowed": sum(set(e.user) <= {ALLOWED} for e in alone),
        "user_tasks_allowed_or_asked": sum(set(e.user) <= {ALLOWED, ASKED} for e in alone),
        "pairs": len(real),
        "pairs_stopped": stopped(real),
        "pairs_read": len(seen),
        "pairs_read_stopped": stopped(seen),
        "injected_calls": len(injected),
        "injected_calls_allowed": injected.count(ALLOWED),
    }


def _explain(alone: list[Episode], attacked: list[Episode]) -> None:
    console = Console()
    for episode in alone:
        for phase, tool, verdict, reason in episode.calls:
            if verdict != ALLOWED:
                console.print(f"{episode.name} {phase} {tool} {verdict}: {reason}", highlight=False)
    for episode in attacked:
        if episode.injected and all(verdict == ALLOWED for verdict in episode.injected):
            told = "read" if episode.read else "not read"
            console.print(f"passed: {episode.name} ({told})", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agentdojo.replay")
    parser.add_argument("--peers", type=Path, required=True, help="the Python that has agentdojo")
    parser.add_argument(
        "--suite", action="append", choices=["banking", "slack", "workspace", "travel"]
    )
    parser.add_argument("--registry", type=Path, help="registry of the one suite that is named")
    parser.add_argument("--explain", action="store_true", help="list what was denied, what passed")
    options = parser.parse_args()
    suites = options.suite or ["banking", "slack"]
    if options.registry and len(suites) != 1:
        parser.error("--registry needs exactly one --suite")
    os.environ.pop(wire.ENV_SOCKET, None)
    dojo = Dojo(options.peers)
    results: dict[str, Any] = {}
    table = Table("figure", *suites)
    try:
        counts = {
            suite: replay(dojo, suite, options.registry or HERE / suite, explain=options.explain)
            for suite in suites
        }
    finally:
        dojo.close()
    for name in next(iter(counts.values())):
        table.add_row(name.replace("_", " "), *(str(counts[suite][name]) for suite in suites))
        for suite in suites:
            results[f"{suite}_{name}"] = figure(
                counts[suite][name], None, "count", f"AgentDojo 0.1.35 {suite} v1.2.2; {machine()}"
            )
    Console().print(table)
    if not options.registry:
        publish("agentdojo", results)


if __name__ == "__main__":
    main()
