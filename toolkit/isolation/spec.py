"""What goes into an enclosure, and the ticket with which a process enters it."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigurationError
from toolkit.values import Caps, IsolationLevel

__all__ = ["EnclosureSpec", "Ticket", "interpreter_paths", "process_limits"]

_MIB = 1 << 20
_GIB = 1 << 30
_SYSTEM = (Path("/usr"), Path("/usr/local"))
_TOO_WIDE = frozenset(map(Path, ("/", "/home", "/proc", "/root", "/sys", "/dev", "/etc", "/var")))


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclosureSpec:
    """What an enclosure is made of; below L2 only level and caps count.

    Attributes:
        level: How far the kernel is kept from the machine.
        work: The kernel's working folder; it may read and write there.
        python: The kernel's interpreter; its environment can be read inside.
        private: Other folders that the kernel may write (connection file, sockets).
        readable: Other files and folders that the kernel may read.
        hidden: Folders below ``work`` or a readable folder that are empty inside.
        gateway_socket: The gateway's unix socket.  Its *folder* is visible inside, so that a
            gateway that was started again is found; the folder holds nothing else.
        relay_port: Port of 127.0.0.1 inside that leads to the gateway's socket; 0: none.
        caps: What the run may use.
        scratch_bytes: Size of ``/tmp``, and of ``/dev/shm``, inside; both are memory.
        uid, gid: Who runs inside, where root starts it; ``None``: the same user.  Folders must
            belong to that user, and the gateway must accept it: ours accepts its own user only.
    """

    level: IsolationLevel
    work: Path
    python: Path
    private: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    gateway_socket: Path | None = None
    relay_port: int = 0
    caps: Caps = field(default_factory=Caps)
    scratch_bytes: int = 512 * _MIB
    uid: int | None = None
    gid: int | None = None

    def check(self) -> None:
        """Refuse what would let out more than it says.

        Raises:
            ConfigurationError: A folder is missing or too wide, or the gateway's folder holds
                more than its socket.
        """
        for path in (self.work, *self.private):
            if path.resolve() in _TOO_WIDE or not path.is_dir():
                raise ConfigurationError(
                    f"{path} cannot be a folder that an isolated kernel writes",
                    where="isolation",
                    next_step="run the notebook in a folder of its own",
                )
        if self.gateway_socket is not None:
            _check_door(self.gateway_socket)


def _check_door(socket: Path) -> None:
    """The folder of the gateway's socket is seen inside, so nothing else may be in it."""
    more = [
        path.name
        for path in socket.parent.iterdir()
        if not path.is_socket() and not path.name.startswith(f"{socket.stem}.port")
    ]
    if more:
        raise ConfigurationError(
            f"the folder of the gateway's socket also holds {min(more)}, "
            "which an isolated kernel would see",
            where=str(socket.parent),
            next_step="give the gateway's socket a folder of its own",
        )


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a process needs to enter an enclosure; plain values, no secret.

    Attributes:
        level: 0 to 3.
        holder: Number of the process that holds the namespaces, as seen outside; 0 below L2.
        holder_started: When it started, in clock ticks since boot: numbers are used again.
        folder: Working folder inside.
        limits: Resource limits by name (``NOFILE``), for :func:`resource.setrlimit`.
        groups: Files of control groups to which the process writes itself.
        filter: The filter of system calls, as hexadecimal digits.
        uid, gid: Who to become first, where root enters; ``None``: stay.
    """

    level: int
    holder: int
    holder_started: int
    folder: str
    limits: Mapping[str, int]
    groups: tuple[str, ...]
    filter: str
    uid: int | None = None
    gid: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; ``Ticket.from_json`` is the inverse."""
        return {**asdict(self), "limits": dict(self.limits), "groups": list(self.groups)}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Ticket:
        """Rebuild a ticket.

        Raises:
            TypeError: Members are missing or unknown.
        """
        return cls(**{**body, "groups": tuple(body.get("groups", ()))})


def process_limits(caps: Caps, level: IsolationLevel, *, grouped: bool) -> dict[str, int]:
    """Return the resource limits of setrlimit(2) for each process of a run.

    Memory is limited as private writable memory (``RLIMIT_DATA``); the address space, which also
    counts what is only reserved or shared, gets four times as much and 4 GiB for libraries.

    Args:
        caps: What the run may use.
        level: Below L1 there is no limit.
        grouped: Whether a control group counts the processes already.
    """
    if level < IsolationLevel.L1:
        return {}
    limits = {"CORE": 0}
    if caps.memory_bytes is not None:
        limits |= {"DATA": caps.memory_bytes, "AS": 4 * caps.memory_bytes + 4 * _GIB}
    if caps.cpu_s is not None:
        limits["CPU"] = caps.cpu_s
    if caps.file_bytes is not None:
        limits["FSIZE"] = caps.file_bytes
    if caps.open_files is not None:
        limits["NOFILE"] = caps.open_files
    if caps.processes is not None and level >= IsolationLevel.L2:
        limits["NPROC"] = caps.processes + 2  # its own user namespace; the relay and the parent
    elif caps.processes is not None and not grouped:
        # The system counts every process of the user, whoever started it.
        limits["NPROC"] = caps.processes + _processes_of(os.getuid())
    return {name: _within(name, value) for name, value in limits.items()}


def _within(name: str, value: int) -> int:
    _, most = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    return value if most == resource.RLIM_INFINITY else min(value, most)


def _processes_of(uid: int) -> int:
    count = 0
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and folder.stat().st_uid == uid:
                count += sum(1 for _ in (folder / "task").iterdir())
        except OSError:
            continue
    return count


def interpreter_paths(python: Path) -> tuple[Path, ...]:
    """Return the folders that an interpreter needs to start and to import its packages.

    Follows the chain of links from an environment's ``python`` to the installed one.  Folders
    of ``sys.path`` outside of these, as of an editable install, are not among them.

    Raises:
        ConfigurationError: There is no such interpreter.
    """
    if not python.exists():
        raise ConfigurationError(
            f"there is no interpreter {python}", where="isolation", next_step="rebuild it"
        )
    found: dict[Path, None] = {}
    step = Path(os.path.abspath(python))
    for _ in range(20):
        found[_prefix(step)] = None
        config = _prefix(step) / "pyvenv.cfg"
        if config.is_file():
            found |= dict.fromkeys(_home_of(config))
        if not step.is_symlink():
            break
        step = Path(os.path.normpath(step.parent / os.readlink(step)))
    found[_prefix(python.resolve())] = None
    return tuple(p for p in found if p.is_dir() and not any(p.is_relative_to(s) for s in _SYSTEM))


def _prefix(program: Path) -> Path:
    """Return the installation of a program, or its folder where there is none around it."""
    above = program.parent.parent
    installed = (above / "pyvenv.cfg").is_file() or any(above.glob("lib/python3*"))
    return above if installed and above not in _TOO_WIDE else program.parent


def _home_of(config: Path) -> list[Path]:
    for line in config.read_text("utf-8", "replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip() == "home" and value.strip():
            return [_prefix(Path(value.strip()) / "python")]
    return []
