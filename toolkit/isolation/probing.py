"""Which level this machine reaches: found by trying to escape, never by reading flags."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ConfigurationError, InfrastructureError, ToolkitError
from toolkit.isolation import bubblewrap
from toolkit.isolation.enclosure import Enclosure
from toolkit.isolation.groups import GROUPS, ControlGroup
from toolkit.isolation.planted import VARIABLE, Planted
from toolkit.isolation.probes import PROBES
from toolkit.isolation.spec import EnclosureSpec
from toolkit.values import Caps, IsolationLevel

__all__ = [
    "Probe",
    "ProbeReport",
    "Reached",
    "choose_level",
    "probe",
    "probe_again",
    "reached_level",
]

_PROBE_S = 60.0
# A level that was not reached may be by now: somebody followed the advice, or the machine was busy.
_FAILURE_KEPT_S = 120.0
_MEMORY_BYTES, _PROCESSES = 128 << 20, 48
_SETTINGS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
    "user/max_net_namespaces",
    "user/max_pid_namespaces",
    "user/max_mnt_namespaces",
)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Probe:
    """One attempt to escape.

    Attributes:
        name: Short name.
        what: What was tried.
        least: The level from which it must hold.
        escaped: Whether the attempt succeeded.
        seen: What was got, or the error that stood in its way.
    """

    name: str
    what: str
    least: IsolationLevel
    escaped: bool
    seen: str


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """Every attempt from inside one enclosure.

    Attributes:
        level: The level of the enclosure.
        probes: In the order in which they were made; empty where it could not be made.
        problem: Why the enclosure could not be made or the probes not be run.
        next_step: What to do about the problem.
    """

    level: IsolationLevel
    probes: tuple[Probe, ...] = ()
    problem: str | None = None
    next_step: str | None = None

    @property
    def escapes(self) -> tuple[Probe, ...]:
        """The attempts that succeeded although the level promises that they do not."""
        return tuple(p for p in self.probes if p.escaped and p.least <= self.level)

    @property
    def holds(self) -> bool:
        """Whether the level is what it says."""
        return self.level is IsolationLevel.L0 or (
            self.problem is None and bool(self.probes) and not self.escapes
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "level": self.level.name,
            "holds": self.holds,
            "problem": self.problem,
            "probes": [{**asdict(p), "least": p.least.name} for p in self.probes],
        }


@dataclass(frozen=True, slots=True)
class Reached:
    """The highest level of this machine that held.

    Attributes:
        level: It.
        reason: Why the next one did not hold; ``None`` if nothing higher was tried.
        next_step: What to do about it.
    """

    level: IsolationLevel
    reason: str | None = None
    next_step: str | None = None


def probe(
    level: IsolationLevel, python: Path | None = None, *, groups: Path = GROUPS
) -> ProbeReport:
    """Make an enclosure, try to escape from it, and tell what happened.  Never raises.

    Targets are planted by this call and removed again: listeners on loopback, a process, files.
    Some of the attempts are made with the rights of this process; they change nothing.

    Args:
        level: Of the enclosure.
        python: The interpreter inside; ``None``: this one.
        groups: Where control groups are mounted.
    """
    try:
        with Planted() as planted:
            answers = _try_all(level, planted, python or Path(sys.executable), groups)
            marked = planted.written_outside()
    except ToolkitError as error:
        return ProbeReport(level, problem=error.message, next_step=error.next_step)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return ProbeReport(level, problem=f"the probes could not be run: {error}")
    found = []
    for name, (least, what, _) in PROBES.items():
        escaped, seen = answers.get(name, (True, "not answered"))
        if name == "write outside":
            # What counts is what arrived: inside, the same path may be memory of its own.
            seen = seen if escaped == marked else "arrived" if marked else "in memory of its own"
            escaped = marked
        found.append(Probe(name, what, IsolationLevel(least), bool(escaped), str(seen)))
    return ProbeReport(level, tuple(found))


def _try_all(level: IsolationLevel, planted: Planted, python: Path, groups: Path) -> dict[str, Any]:
    script = Path(__file__).with_name("probes.py")
    limits = {name: planted.targets[name] for name in ("file_bytes", "open_files")}
    if level >= IsolationLevel.L3:  # below, what is not promised need not be tried at that cost
        limits |= {"memory_bytes": _MEMORY_BYTES, "processes": _PROCESSES}
        planted.targets |= {"memory_cap": _MEMORY_BYTES, "process_cap": _PROCESSES}
    spec = EnclosureSpec(
        level=level,
        work=planted.work,
        python=python,
        readable=(script, script.with_name("group_probes.py")),
        caps=Caps(**limits),
    )
    # At L0 a kernel has everything that its starter has.
    variables = dict(bubblewrap.CLEAN_ENVIRONMENT)
    if level is IsolationLevel.L0:
        variables[VARIABLE] = planted.canary
    with Enclosure(spec, groups) as enclosure:
        command = [str(python), "-I", "-S", str(script), json.dumps(planted.targets)]
        ended = subprocess.run(
            enclosure.command(command),
            env=enclosure.environment(variables),
            capture_output=True,
            cwd=planted.work,
            timeout=_PROBE_S,
            check=False,
        )
    if ended.returncode != 0:
        said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
        raise InfrastructureError(
            f"the probes ended with {ended.returncode}: {said[-1][:200] if said else 'no message'}",
            where="isolation",
        )
    answers: dict[str, Any] = json.loads(ended.stdout)
    return answers


def reached_level(
    wanted: IsolationLevel, cache: Path | None = None, *, groups: Path = GROUPS
) -> Reached:
    """Return the highest level up to ``wanted`` that holds here.

    Args:
        wanted: No higher level is tried.
        cache: File that keeps the answer until the machine is started again, or bubblewrap, the
            system's kernel or its settings of namespaces, this interpreter or this package changes,
            or control groups can be made or no more; two minutes, if ``wanted`` was not reached.
            Who can write it can make this function lie, but not an enclosure: that is made or fails.
        groups: Where control groups are mounted.
    """
    key = _machine_key(groups)
    known = _read_cache(cache, key)
    if known.get("tried", -1) >= wanted:
        found = known["reached"]
        return Reached(min(IsolationLevel(found["level"]), wanted), found["reason"], found["next"])
    reached = _highest(probe(IsolationLevel(n), groups=groups) for n in range(wanted, 0, -1))
    _keep(cache, key, wanted, reached)
    return reached


def probe_again(cache: Path | None = None) -> list[ProbeReport]:
    """Try every level, whatever was probed before, and keep what was found for others.

    Args:
        cache: As for :func:`reached_level`.
    """
    reports = [probe(level) for level in IsolationLevel]
    _keep(cache, _machine_key(GROUPS), max(IsolationLevel), _highest(reversed(reports)))
    return reports


def _highest(reports: Iterable[ProbeReport]) -> Reached:
    """Return the first level that holds of those that fall, and why the one above it does not."""
    reason = step = None
    for report in reports:
        if report.holds:
            return Reached(report.level, reason, step)
        reason, step = _why(report), report.next_step
    return Reached(IsolationLevel.L0, reason, step)


def _keep(cache: Path | None, key: str, wanted: IsolationLevel, reached: Reached) -> None:
    body = {"level": int(reached.level), "reason": reached.reason, "next": reached.next_step}
    told = {"key": key, "tried": int(wanted), "at_s": time.time(), "reached": body}
    _write_cache(cache, told)


def choose_level(
    minimum: IsolationLevel,
    preferred: IsolationLevel,
    cache: Path | None = None,
    *,
    groups: Path = GROUPS,
) -> Reached:
    """Return the level for a run: the preferred one, or the highest that this machine reaches.

    Raises:
        ConfigurationError: The machine does not reach the minimum; the run must not start.
    """
    reached = reached_level(max(minimum, preferred), cache, groups=groups)
    if reached.level >= minimum:
        return reached
    raise ConfigurationError(
        f"policy asks for isolation {minimum.name} and this machine reaches {reached.level.name}: "
        f"{reached.reason}",
        where="isolation",
        next_step=reached.next_step or "toolkit doctor --isolation shows what does not hold",
        details=asdict(reached),
    )


def _why(report: ProbeReport) -> str:
    if report.problem is not None:
        return report.problem
    names = ", ".join(p.name for p in report.escapes[:5])
    return f"{len(report.escapes)} of {len(report.probes)} attempts to escape succeeded ({names})"


def _machine_key(groups: Path) -> str:
    """Digest of everything that the answer depends on."""
    try:
        wrap = bubblewrap.program()
        told = f"{wrap} {bubblewrap.version()} {os.stat(wrap).st_mtime_ns}"
    except ConfigurationError:
        told = "none"
    try:
        boot = _BOOT_ID.read_text("ascii").strip()
    except OSError:
        boot = ""
    digest = hashlib.sha256(repr((boot, told, platform.uname(), os.getuid())).encode())
    digest.update(sys.executable.encode())
    digest.update(repr((_settings(), _can_group(groups))).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _settings(root: Path = Path("/proc/sys")) -> list[str]:
    """Return the settings of the system that let, or do not let, make namespaces."""
    found = []
    for name in _SETTINGS:
        try:
            found.append((root / name).read_text("ascii").strip())
        except OSError:
            found.append("")
    return found


def _can_group(groups: Path) -> bool:
    """Whether a control group can be made by this process: where it was started decides."""
    group = ControlGroup.make(Caps(), groups, whole=True)
    if group is None:
        return False
    group.remove()
    return group.whole


def _read_cache(cache: Path | None, key: str) -> dict[str, Any]:
    if cache is None:
        return {}
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        body = json.loads(cache.read_bytes())
        body["reached"] = {name: body["reached"][name] for name in ("level", "reason", "next")}
        failed = body["reached"]["level"] < body["tried"]
        if failed and not 0 <= time.time() - float(body["at_s"]) < _FAILURE_KEPT_S:
            return {}
        if body["key"] == key and IsolationLevel(body["tried"]) in IsolationLevel:
            return dict(body)
    return {}


def _write_cache(cache: Path | None, body: dict[str, Any]) -> None:
    if cache is None:
        return
    temporary = cache.with_name(f"{cache.name}.{os.getpid()}")
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(body), "utf-8")
        temporary.replace(cache)
