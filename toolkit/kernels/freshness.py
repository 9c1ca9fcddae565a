"""Whether a zygote still is what a fresh interpreter would be."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Imported", "start_variables"]

_PACKAGES = {"site-packages", "dist-packages"}
# Read by the interpreter, the loader, the C library or numerical libraries when a process starts
# or a package is imported; later changes have no effect, so they choose the zygote.
_AT_START = (
    *("ARROW_", "BLIS_", "GOTO_", "JE_ARROW_", "KMP_", "LC_", "LD_", "MALLOC_", "MKL_", "NPY_"),
    *("NUMEXPR_", "OMP_", "OPENBLAS_", "PANDAS_", "PYTHON", "VECLIB_"),
)
_AT_START_NAMES = frozenset({"GLIBC_TUNABLES", "HOME", "LANG", "LANGUAGE", "TZ", "XDG_CONFIG_HOME"})


def start_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that matter to a process before its first line runs, sorted."""
    return {
        name: value
        for name, value in sorted(environment.items())
        if name in _AT_START_NAMES or name.startswith(_AT_START)
    }


Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class Imported:
    """The files behind an interpreter and its modules, as they were when they were read.

    Attributes:
        stamps: (inode, size, time of change) by path.  Folders of packages are there too: an
            installation changes their time.  Modules of the standard library are not; its folder
            and the interpreter are.
    """

    stamps: dict[str, Stamp]

    @classmethod
    def now(cls) -> Imported:
        """Return what this process has imported."""
        library = os.path.realpath(sysconfig.get_paths()["stdlib"]) + os.sep
        paths = {sys.executable, os.path.realpath(sys.executable), library}
        paths.update(path for path in sys.path if Path(path).name in _PACKAGES)
        paths.add(str(Path(sys.prefix) / "pyvenv.cfg"))
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str):
                real = os.path.realpath(file)
                if not real.startswith(library) or _PACKAGES & set(Path(real).parts):
                    paths.add(real)
        found = {path: _stamp(path) for path in sorted(paths)}
        return cls({path: stamp for path, stamp in found.items() if stamp is not None})

    def changed(self) -> str | None:
        """Return the first path that is no longer as it was, or ``None``."""
        for path, stamp in self.stamps.items():
            if _stamp(path) != stamp:
                return path
        return None


def _stamp(path: str) -> Stamp | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - 1,500 of them before every kernel
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
