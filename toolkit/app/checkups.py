"""What the doctor tells, and its look at the files of the registry that people write."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolkit.errors import InvalidFile, NotFound
from toolkit.settings import Workspace

__all__ = ["Checkup", "look_at_files", "missing_variables"]


@dataclass(frozen=True, slots=True)
class Checkup:
    """One thing that was looked at.

    Attributes:
        what: Its name.
        state: ``fine``, ``note`` (works, but look) or ``wrong``.
        detail: What was found.
        next_step: How to mend it.
        seconds: How long the look at this part took (parts that tell several things: all of them).
        passing: Whether what is wrong may pass without a change here: a server that is away.
    """

    what: str
    state: str
    detail: str
    next_step: str | None = None
    seconds: float = 0.0
    passing: bool = False


def look_at_files(workspace: Workspace) -> Iterator[Checkup]:
    """Read every file that people write, and name the variables that they need and are not set.

    Policies and ``models.yaml`` are parts of their own.
    """
    registry = workspace.registry
    for what, path, read in (
        ("tools", registry / "tools.yaml", _tools),
        ("data", registry / "data.yaml", _data),
        ("people", registry / "people.yaml", _people),
        ("jobs", registry / "jobs.yaml", _jobs),
        ("waivers", registry / "waivers.yaml", _waivers),
        *(
            ("evaluation", path.parent, _evaluation_set)
            for path in sorted(registry.glob("evaluations/*/set.yaml"))
        ),
    ):
        if not path.exists():
            continue
        try:
            yield from read(path)
        except (InvalidFile, NotFound) as error:
            yield Checkup(what, "wrong", error.message, error.next_step)


def missing_variables(what: str, name: str, variables: Iterable[str | None]) -> Iterator[Checkup]:
    """Name the variables of the environment that something needs and this process does not have.

    Args:
        what: Its kind: ``provider``, ``source``.
        name: Its name in its file.
        variables: Their names; ``None``: it needs none.
    """
    for variable in variables:
        if variable and variable not in os.environ:
            yield Checkup(
                what,
                "note",
                f"{name}: {variable} is not set here",
                f"export {variable}=… before the gateway starts",
            )


def _tools(path: Path) -> Iterator[Checkup]:
    from toolkit.policy import ToolCatalog
    from toolkit.tools import RemoteFile

    tools, remote = ToolCatalog.load(path), RemoteFile.load(path)
    servers = {**remote.servers, **remote.http}
    yield Checkup("tools", "fine", f"{len(tools)} tools, {len(servers)} servers and services")
    for name, server in sorted(servers.items()):
        yield from missing_variables("server", name, server.variables)


def _data(path: Path) -> Iterator[Checkup]:
    from toolkit.sources import DataCatalog

    sources = DataCatalog.load(path).sources
    yield Checkup("data", "fine", f"{len(sources)} sources")
    for name, source in sorted(sources.items()):
        yield from missing_variables("source", name, source.variables)


def _people(path: Path) -> Iterator[Checkup]:
    from toolkit.policy import People

    yield Checkup("people", "fine", f"{len(People.load(path))} people")


def _jobs(path: Path) -> Iterator[Checkup]:
    from toolkit.scheduling import Jobs

    yield Checkup("jobs", "fine", f"{len(Jobs.read(path).named)} jobs have settings of their own")


def _waivers(path: Path) -> Iterator[Checkup]:
    from toolkit.promotion import Waivers

    read = Waivers.load(path, time.time_ns() // 1000)
    yield Checkup("waivers", "fine", f"{len(read.waivers)} waivers")


def _evaluation_set(folder: Path) -> Iterator[Checkup]:
    from toolkit.evaluation import REVIEW, EvaluationSet

    if (folder / REVIEW).exists() and not (folder / "cases.jsonl").exists():
        step = f"read them, then toolkit evaluation accept {folder.name}"
        yield Checkup("evaluation", "note", f"{folder.name}: cases wait for review, no other", step)
        return
    cases = EvaluationSet.load(folder).cases
    yield Checkup("evaluation", "fine", f"{folder.name}: {len(cases)} cases")
