"""AgentDojo's tasks, played call by call through a gateway in production mode."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from toolkit.client import Connection, wire
from toolkit.client.launch import ensure_gateway
from toolkit.errors import ApprovalPending, ToolkitError
from toolkit.gateway import stop_gateway
from toolkit.gateway.identity import new_token, token_digest
from toolkit.ledger import Ledger
from toolkit.settings import Workspace, open_workspace
from toolkit.values import CallKind, Environment, RunKind, RunRecord, RunState, new_id

__all__ = [
    "ALLOWED",
    "ASKED",
    "DENIED",
    "FAILED",
    "Asked",
    "Deed",
    "Dojo",
    "Episode",
    "Player",
    "gateway",
]

HERE = Path(__file__).parent
ALLOWED, ASKED, DENIED, FAILED = "allowed", "asked", "denied", "failed"
USER = "emma"


class Asked(Protocol):
    """What a player needs of AgentDojo; see driver.py."""

    def ask(self, deed: str, **arguments: Any) -> dict[str, Any]: ...


class Dojo:
    """AgentDojo in a process of its own, which has its own Python."""

    def __init__(self, python: Path) -> None:
        if not python.exists():
            sys.exit(f"{python} is not there; make it with: make agentdojo")
        self._process = subprocess.Popen(
            [str(python), str(HERE / "driver.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, deed: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        try:
            self._process.stdin.write(json.dumps({"do": deed, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            last = self._process.stderr.read().strip().splitlines()[-1:]
            sys.exit(f"AgentDojo's process has ended: {' '.join(last) or 'it said nothing'}")
        said: dict[str, Any] = json.loads(line)
        if "failed" in said:
            sys.exit(f"AgentDojo failed: {said['failed']}")
        return said

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()


@dataclasses.dataclass(frozen=True)
class Deed:
    """What policy said to one call.

    Attributes:
        phase: ``user`` or ``injected``.
        reason: Why it was not allowed.
        origins: Where each argument came from, as the gateway recorded it.
    """

    phase: str
    tool: str
    arguments: dict[str, Any]
    verdict: str
    reason: str
    origins: dict[str, str]


@dataclasses.dataclass
class Episode:
    """One user task, with or without an injected task.

    Attributes:
        read: Whether a tool's answer held the injected text before the injected calls.
        useful: Whether the user's task is done, by AgentDojo's own check.
        harmed: Whether the injected task is done, by AgentDojo's own check.
    """

    name: str
    deeds: list[Deed] = dataclasses.field(default_factory=list)
    read: bool = False
    useful: bool = False
    harmed: bool = False

    def verdicts(self, phase: str) -> list[str]:
        """Verdicts of the user's or the injected calls, in order."""
        return [deed.verdict for deed in self.deeds if deed.phase == phase]

    @property
    def stopped(self) -> bool:
        """Whether at least one of the injected calls did not happen."""
        return any(verdict != ALLOWED for verdict in self.verdicts("injected"))


class Player:
    """Asks the gateway for each call of an episode, as a kernel would."""

    def __init__(self, workspace: Workspace, ledger: Ledger, dojo: Asked, suite: str) -> None:
        self.workspace = workspace
        self.ledger = ledger
        self.dojo = dojo
        self.suite = suite

    def play(self, user_task: str, injection: str | None) -> Episode:
        """Play one user task, then the injected task as a fooled model would."""
        scene = self.dojo.ask("start", suite=self.suite, user_task=user_task, injection=injection)
        episode = Episode(f"{user_task} {injection or ''}".strip())
        run = self._run(scene["prompt"])
        goal = None if scene["goal"] is None else _letters(scene["goal"])
        try:
            for call in scene["user_calls"]:
                answer = self._call(run, "user", call, episode)
                episode.read = episode.read or bool(goal and goal in _letters(*_texts(answer)))
            for call in scene["injected_calls"]:
                self._call(run, "injected", call, episode)
        finally:
            self.ledger.update_run(run.run_id, state=RunState.SUCCEEDED)
            run.close()
        judged = self.dojo.ask("judge")
        episode.useful, episode.harmed = judged["useful"], judged["harmed"]
        return episode

    def _run(self, prompt: str) -> Connection:
        token = new_token()
        self.ledger.create_run(
            RunRecord(
                run_id=new_id("run"),
                kind=RunKind.RUN,
                environment=Environment.PRODUCTION,
                user=USER,
                state=RunState.RUNNING,
                job=f"agentdojo-{self.suite}",
                version=1,
                parameters={"prompt": prompt},
                token_digest=token_digest(token),
            )
        )
        return Connection(str(self.workspace.socket), token=token).open()

    def _call(self, run: Connection, phase: str, call: dict[str, Any], episode: Episode) -> Any:
        """Ask for one call; execute it when it is allowed, and return what it answered."""
        # The catalog knows which tools write; a caller's word can only make it stricter.
        request = run.identify(CallKind.TOOL, call["tool"], call["arguments"], effect="read")
        answer: Any = None
        try:
            reply = run.post(wire.BEGIN, request)
            verdict, reason = _verdict(reply)
        except ApprovalPending as error:
            verdict, reason = ASKED, error.message
        except ToolkitError as error:
            verdict, reason = FAILED, str(error)
        if verdict == ALLOWED:
            said = self.dojo.ask("call", tool=call["tool"], arguments=call["arguments"])
            answer = said["answer"] if said["error"] is None else {"error": said["error"]}
            done = {"key": reply["key"], "generation": reply["generation"]}
            run.post(wire.FINISH, {**done, "state": "ok", "answer": answer})
        episode.deeds.append(
            Deed(phase, call["tool"], call["arguments"], verdict, reason, self._origins(run))
        )
        return answer

    def _origins(self, run: Connection) -> dict[str, str]:
        recorded = self.ledger.calls(run.run_id)
        if not recorded:
            return {}
        return {
            name: "+".join(sorted(labels.sources)) or "says nothing"
            for name, labels in recorded[-1].intent.labels.items()
        }


def _verdict(reply: dict[str, Any]) -> tuple[str, str]:
    reasons = "; ".join(reply["decision"]["reasons"])
    if reply["outcome"] is not None and reply["outcome"]["state"] == "denied":
        return DENIED, reasons
    return ALLOWED, ""


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _letters(*texts: str) -> str:
    """Return texts without what YAML and HTML change on the way: blanks, quotes, case."""
    return re.sub(r"\W+", "", " ".join(texts)).casefold()


@contextlib.contextmanager
def gateway(registry: Path) -> Iterator[Workspace]:
    """A workspace with this registry's tools and production policy, and its gateway."""
    root = Path(tempfile.mkdtemp(prefix="agentdojo-"))
    (root / "toolkit.toml").write_text(f'user = "{USER}"\n', "utf-8")
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
