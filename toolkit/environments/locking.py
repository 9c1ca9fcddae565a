"""From declared dependencies to a lock, by uv."""

from __future__ import annotations

import platform
import sys
import tempfile
from pathlib import Path

from packaging.specifiers import SpecifierSet

from toolkit.environments.installed import installed
from toolkit.environments.kernel_side import KernelSide
from toolkit.environments.lock import Lock, read_pins, this_platform, this_python
from toolkit.environments.uv import run_uv
from toolkit.errors import InfrastructureError, NotebookRejected

__all__ = ["lock_dependencies"]

_OWN = "agent-toolkit"


def lock_dependencies(
    requirements: tuple[str, ...],
    requires_python: str = "",
    *,
    cwd: Path,
    kernel_side: KernelSide | None = None,
) -> Lock:
    """Resolve requirements together with the kernel side's, for this Python and platform.

    Where a requirement leaves a choice, the versions that are installed here are preferred: they
    are what the notebook was written with.  Only distributions with a wheel are considered.

    Args:
        requirements: As the notebook declares them.
        requires_python: Its version specifier, or empty.
        cwd: The workspace; uv looks for its configuration from there upwards.
        kernel_side: What every environment needs; default: that of the running toolkit.

    Raises:
        NotebookRejected: Nothing satisfies them.
        InfrastructureError: The index cannot be reached, or uv failed.
    """
    version = platform.python_version()
    if requires_python and not SpecifierSet(requires_python).contains(version, prereleases=True):
        raise NotebookRejected(
            f"the notebook requires Python {requires_python}, the toolkit runs on {version}",
            next_step="widen requires-python, or run the toolkit on such a Python",
        )
    side = kernel_side or KernelSide.running()
    with tempfile.TemporaryDirectory(prefix="toolkit-lock-") as scratch:
        asked, answer = Path(scratch, "declared.in"), Path(scratch, "answer.txt")
        asked.write_text("\n".join((*requirements, *side.requirements)) + "\n", "utf-8")
        answer.write_text(_preferred(), "utf-8")
        run_uv(_arguments(asked, answer), cwd=cwd, what="locking the dependencies")
        packages, faults = read_pins(answer.read_text("utf-8").splitlines())
    if faults or (not packages and (requirements or side.requirements)):
        reason = faults[0].message if faults else "it is empty"
        raise InfrastructureError(
            f"uv's answer is not a lock: {reason}",
            next_step="update uv, and look for a source override in your uv configuration",
        )
    return Lock(this_python(), this_platform(), tuple(requirements), packages)


def _arguments(asked: Path, answer: Path) -> list[str]:
    return [
        *("pip", "compile", str(asked), "--output-file", str(answer), "--quiet"),
        *("--generate-hashes", "--no-header", "--no-annotate"),
        *("--only-binary", ":all:", "--python", sys.executable),
    ]


def _preferred() -> str:
    """Return pins in the form of an earlier answer, which uv prefers and does not insist on."""
    pins = (f"{n}=={v}\n" for n, v in sorted(installed().items()) if v != "unknown" and n != _OWN)
    return "".join(pins)
