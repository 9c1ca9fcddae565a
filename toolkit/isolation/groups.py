"""A control group of one enclosure: memory and processes of everything in it, counted together.

Formats: cgroup-v2.rst, and memory.rst and pids.rst of cgroup-v1, of the Linux kernel's
documentation.
"""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from toolkit.values import Caps

__all__ = ["GROUPS", "ControlGroup"]

GROUPS = Path("/sys/fs/cgroup")
"""Where control groups are mounted."""

_REMOVE_TRIES, _REMOVE_PAUSE_S = 100, 0.02


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Folders of one group: one for cgroup v2, one per controller for v1.

    Attributes:
        memory: Folder with the memory controller; ``None`` where it could not be had.
        processes: Folder with the pids controller; ``None`` where it could not be had.
        folders: The folders to remove, without twins.
    """

    memory: Path | None
    processes: Path | None

    @property
    def folders(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(p for p in (self.memory, self.processes) if p is not None))

    @property
    def entrances(self) -> tuple[Path, ...]:
        """Files to which a process writes ``0`` to enter the group."""
        return tuple(folder / "cgroup.procs" for folder in self.folders)

    @classmethod
    def make(cls, caps: Caps, root: Path = GROUPS, *, whole: bool = False) -> ControlGroup | None:
        """Make a group below the one that this process is in, as far as the machine lets us.

        Args:
            caps: What the group may use.
            root: Where control groups are mounted.
            whole: Whether memory and processes are counted even where nothing caps them.

        Returns:
            ``None`` if nothing is to be counted, or no controller can be had.
        """
        memory = whole or caps.memory_bytes is not None
        processes = whole or caps.processes is not None
        if not (memory or processes):
            return None
        name = f"toolkit-{os.getpid()}-{secrets.token_hex(4)}"
        values = _caps_v2(caps, memory=memory, processes=processes)
        group = _unified(root, name, values) or cls(
            _one(root / "memory", name, _memory_v1(caps) if memory else {}),
            _one(root / "pids", name, {"pids.max": caps.processes} if processes else {}),
        )
        return group if group.folders else None

    @property
    def whole(self) -> bool:
        """Whether both memory and processes are counted."""
        return self.memory is not None and self.processes is not None

    def oom_kills(self) -> int:
        """Return how many processes of the group were killed because its memory was used up."""
        if self.memory is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError, ValueError):
                for line in (self.memory / name).read_text("utf-8").splitlines():
                    key, _, number = line.partition(" ")
                    if key == "oom_kill":
                        return int(number)
        return 0

    def remove(self) -> bool:
        """Kill what is left in the group, remove it, and return whether it is gone."""
        for _ in range(_REMOVE_TRIES):
            left = [folder for folder in self.folders if folder.is_dir()]
            if not left:
                return True
            for folder in left:
                _kill_members(folder)
                with suppress(OSError):
                    folder.rmdir()
            if any(folder.is_dir() for folder in left):
                time.sleep(_REMOVE_PAUSE_S)
        return not any(folder.is_dir() for folder in self.folders)


def _kill_members(folder: Path) -> None:
    with suppress(OSError, ValueError):
        for line in (folder / "cgroup.procs").read_text("utf-8").split():
            with suppress(ProcessLookupError, PermissionError):
                if int(line) > 0:  # 0: a process outside of our process namespace
                    os.kill(int(line), signal.SIGKILL)


def _own(controller: str) -> str | None:
    """Return the path of this process's group; the empty name stands for cgroup v2."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, names, path = line.split(":", 2)
            if names == controller or controller in names.split(","):
                return path.lstrip("/")
    return None


def _unified(root: Path, name: str, values: dict[str, int | None]) -> ControlGroup | None:
    """Make a group of cgroup v2, below us or below the nearest group that lets us."""
    own = _own("")
    needed = {kind for kind in ("memory", "pids") if f"{kind}.max" in values}
    if own is None or not (root / "cgroup.controllers").is_file():
        return None
    # A group that holds processes may not share out controllers: only groups above it may.
    for parent in (root / own, *(p for p in (root / own).parents if p.is_relative_to(root))):
        with suppress(OSError):
            shared = parent / "cgroup.subtree_control"
            if not needed <= set(shared.read_text("utf-8").split()):
                if not os.access(shared, os.W_OK):
                    continue
                shared.write_text(" ".join(f"+{kind}" for kind in sorted(needed)), "utf-8")
            folder = _one(parent, name, values)
            if folder is not None:
                return ControlGroup(
                    folder if "memory" in needed else None,
                    folder if "pids" in needed else None,
                )
    return None


def _one(parent: Path, name: str, values: dict[str, int | None]) -> Path | None:
    """Make one folder and write its limits; ``None`` if that cannot be done."""
    if not values:
        return None
    controller = parent.name if parent.name in {"memory", "pids"} else None
    inside = parent / (_own(controller) or "") if controller else parent
    for above in _candidates(inside, parent):
        folder = above / name
        try:
            folder.mkdir(mode=0o700)
        except OSError:
            continue
        if _write_all(folder, values):
            return folder
        with suppress(OSError):
            folder.rmdir()
    return None


def _candidates(inside: Path, top: Path) -> Iterator[Path]:
    """The group we are in; the top one where ours is not mounted (a container's view)."""
    if inside.is_dir():
        yield inside
    elif top.is_dir():
        yield top


def _write_all(folder: Path, values: dict[str, int | None]) -> bool:
    for name, value in values.items():
        path, optional = folder / name.removeprefix("?"), name.startswith("?")
        if optional and not path.exists():
            continue
        try:
            path.write_text("max" if value is None else str(value), "utf-8")
        except OSError:
            if not optional:
                return False
    # Somebody else may own the folder's files: entering must be possible too.
    return os.access(folder / "cgroup.procs", os.W_OK)


def _memory_v1(caps: Caps) -> dict[str, int | None]:
    most = -1 if caps.memory_bytes is None else caps.memory_bytes
    # Memory and swap together, where the kernel counts swap.
    return {"memory.limit_in_bytes": most, "?memory.memsw.limit_in_bytes": most}


def _caps_v2(caps: Caps, *, memory: bool, processes: bool) -> dict[str, int | None]:
    values: dict[str, int | None] = {}
    if memory:
        values |= {"memory.max": caps.memory_bytes, "?memory.oom.group": 0}
        if caps.memory_bytes is not None:
            values["?memory.swap.max"] = 0
    if processes:
        values["pids.max"] = caps.processes
    return values
