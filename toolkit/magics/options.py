"""Options of a magic line, read like a command line and refused in one sentence."""

from __future__ import annotations

import argparse
import shlex
from typing import Any, NoReturn

from toolkit.errors import UsageError

__all__ = ["Options"]


class Options(argparse.ArgumentParser):
    """An argument parser that raises :class:`UsageError` and never ends the process.

    Args:
        magic: The name as it is typed (``%%model``).
        description: One sentence.
    """

    def __init__(self, magic: str, description: str) -> None:
        super().__init__(prog=magic, description=description, add_help=False, allow_abbrev=False)

    def read(self, line: str) -> argparse.Namespace:
        """Parse a magic's line; quotes work as in a shell.

        Raises:
            UsageError: The line does not fit; the usage is the next step.
        """
        try:
            words = shlex.split(line)
        except ValueError as error:
            raise UsageError(f"{self.prog}: {error}", next_step=self._usage()) from error
        return self.parse_args(words)

    def error(self, message: str) -> NoReturn:
        """Raise instead of ending the kernel."""
        raise UsageError(f"{self.prog}: {message}", next_step=self._usage())

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Raise instead of ending the kernel."""
        raise UsageError(f"{self.prog}: {message or status}", next_step=self._usage())

    def _usage(self) -> str:
        return " ".join(self.format_usage().split())

    def flag(self, name: str, **how: Any) -> Options:
        """Add an option and return the parser, so that a magic's options read as one list."""
        self.add_argument(name, **how)
        return self
