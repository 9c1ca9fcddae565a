"""A job's kernel that installs packages: refused where seen.

The wall is elsewhere: from isolation level L2 on the kernel reads its environment and cannot write
it, and an environment of a lock is verified before each run.  This says so at once, and in words:
an audit hook (PEP 578) sees what Python code starts, and pip's own installer when it is imported.

Not seen: what a program that the kernel starts starts in turn (``%%bash``); it finds no index.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from typing import Any

__all__ = ["guard_installs", "is_install"]

_STARTS = frozenset(
    ["os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "pty.spawn"]
)
# pip imports its commands by name, which is no event of its own; reading their files is one.
_INSIDE = re.compile(r"/pip/_internal/commands/(?:__pycache__/)?(?:un)?install\.")
_INSTALL = re.compile(
    r"(?:^|[;&|(`\n])\s*(?:(?:sudo|exec|nohup|time|env)\s+)*(?:\w+=\S*\s+)*"
    r"(?:(?:\S*/)?python[\d.]*\s+(?:-\S+\s+)*?-m\s+)?"
    r"(?:\S*/)?(?:pip[\d.]*|uv|conda|mamba|micromamba|poetry|pdm|pixi|easy_install)"
    r"(?:\s+(?:pip|-\S+(?:\s+\S+)?))*?\s+"
    r"(?:install|uninstall|sync|add|remove|update|upgrade)\b"
)
_SAID = (
    "packages are not installed while a job runs: declare them in the notebook (docs/environments.md)"
    " and promote it"
)
_guarding = False


def is_install(command: str) -> bool:
    """Say whether a command line installs, changes or removes packages."""
    return _INSTALL.search(command) is not None


def guard_installs(shell: Any = None) -> None:
    """Refuse installations in this process from now on; once, and for its whole life.

    Args:
        shell: IPython's shell, whose ``!`` and ``%pip`` are refused before they start anything.
    """
    global _guarding  # noqa: PLW0603 - a process has one list of audit hooks
    if not _guarding:
        _guarding = True
        sys.addaudithook(_hear)
    if shell is not None:
        for name in ("system", "system_piped", "system_raw", "getoutput"):
            _wrap(shell, name)


def _wrap(shell: Any, name: str) -> None:
    kept = getattr(shell, name)

    def refusing(command: str, *args: Any, **options: Any) -> Any:
        if is_install(str(shell.var_expand(command, depth=1))):
            raise PermissionError(_SAID)
        return kept(command, *args, **options)

    # The shell's own code finds it here, past its traits.
    shell.__dict__[name] = refusing


def _hear(event: str, args: tuple[Any, ...]) -> None:
    """Look at one event; see "Audit events table" of Python's documentation."""
    if event == "open":
        path = args[0]
        # Most of what is opened is not pip's: a search for a word is cheaper than a pattern.
        refused = isinstance(path, str) and "/pip/" in path and _INSIDE.search(path) is not None
    else:
        refused = event in _STARTS and any(is_install(text) for text in _texts(args))
    if refused:
        raise PermissionError(_SAID)


def _texts(args: tuple[Any, ...]) -> Iterator[str]:
    """Yield what may be a command: each word, and the words of each list together."""
    for value in args[:3]:
        if isinstance(value, str | bytes | os.PathLike):
            yield os.fsdecode(value)
        elif isinstance(value, list | tuple):
            words = [
                os.fsdecode(one) for one in value if isinstance(one, str | bytes | os.PathLike)
            ]
            yield from words
            yield " ".join(words)
