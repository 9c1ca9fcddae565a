"""The notebook's entrance: ``%load_ext toolkit`` and the magics that it brings.

Rules
-----
* Nothing is decided here; every magic is a thin dress over ``toolkit.client``.
* Loading is light: no ipywidgets before a panel is shown, no rich, no pandas, no MLflow.
* No traceback reaches a reader for an error of the toolkit, and the cell still fails for the kernel.
* Loading never fails: without a gateway it says so in one sentence, and the next call tries again.
* What came from outside is escaped; stable and volatile facts are kept apart (see ``cards``).
* A cell without JupyterLab's id is a new cell at each execution.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from IPython.core.magic import no_var_expand

import toolkit
from toolkit.magics.cards import NBVAL_SANITIZE
from toolkit.magics.cells import CellMagics
from toolkit.magics.extension import Extension
from toolkit.magics.line import LineMagics
from toolkit.magics.panel import Panel

__all__ = [
    "NBVAL_SANITIZE",
    "CellMagics",
    "Extension",
    "LineMagics",
    "Panel",
    "load_ipython_extension",
    "unload_ipython_extension",
]

_loaded: WeakKeyDictionary[Any, Extension] = WeakKeyDictionary()


def load_ipython_extension(ip: Any) -> None:
    """Connect the kernel, put ``toolkit`` into its namespace, register hooks and magics.

    Loading twice changes nothing.

    Args:
        ip: The IPython shell.
    """
    if ip in _loaded:
        return
    extension = Extension(ip)
    _loaded[ip] = extension
    ip.user_ns["toolkit"] = toolkit
    for magics in (CellMagics(ip, extension), LineMagics(extension)):
        for name, kind in magics.kinds.items():
            ip.register_magic_function(_magic(getattr(magics, name)), kind, name)
    extension.install()


def unload_ipython_extension(ip: Any) -> None:
    """Take hooks, magics and displays out again; recorded calls and the session stay.

    Args:
        ip: The IPython shell.
    """
    extension = _loaded.pop(ip, None)
    if extension is None:
        return
    extension.remove()
    for name, kind in (CellMagics.kinds | LineMagics.kinds).items():
        for one in kind.split("_"):
            ip.magics_manager.magics[one].pop(name, None)


def _magic(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a magic that gets its line as it was typed: ``{…}`` is filled by our own rules."""

    @functools.wraps(method)
    def run(line: str, *cell: str) -> Any:
        return method(line, *cell)

    no_var_expand(run)
    return run
