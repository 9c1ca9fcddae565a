"""The `toolkit` command: all commands of all modules, and one place for errors."""

from __future__ import annotations

import functools
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from toolkit.cli import (
    approvals,
    checking,
    environments,
    evaluations,
    exporting,
    gateways,
    governing,
    keys,
    notebooks,
    policies,
    promoting,
    replaying,
    running,
    scheduling,
    tools,
    triggers,
    trusting,
    working,
    workspaces,
)
from toolkit.cli.show import err, error_lines, print_json
from toolkit.errors import (
    ApprovalPending,
    InfrastructureError,
    Interrupted,
    ToolkitError,
    UsageError,
)

__all__ = ["app", "command", "main"]

app = typer.Typer(
    name="toolkit",
    help="From an agent in a notebook to a governed, durable job.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_WAITS = 3
_CTRL_C = 130

# Typer carries its own click and exports only the leaves; this is their common base.
_CommandLineError: type[Exception] = next(
    base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException"
)

workspaces.register(app)
checking.register(app)
notebooks.register(app)
evaluations.register(app)
running.register(app)
exporting.register(app)
replaying.register(app)
scheduling.register(app)
working.register(app)
triggers.register(app)
governing.register(app)
keys.register(app)
trusting.register(app)
approvals.register(app)
promoting.register(app)
policies.register(app)
gateways.register(app)
environments.register(app)
tools.register(app)


@functools.cache
def command() -> Any:
    """Return what reads command lines; making it takes a tenth of a second."""
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; console script and ``python -m toolkit``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        result = command().main(arguments, prog_name="toolkit", standalone_mode=False)
    except ToolkitError as error:
        return _tell(error, arguments)
    except _CommandLineError as error:
        return _not_understood(error, arguments)
    except (typer.Abort, KeyboardInterrupt):
        result = _CTRL_C
    except BrokenPipeError:  # `toolkit runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - a fault of ours: kept for us, told in a sentence
        return _own_fault(error, arguments)
    if result == _CTRL_C:  # what Typer makes of a KeyboardInterrupt
        err.print("stopped", markup=False)
        return Interrupted.exit_code
    return result if isinstance(result, int) else 0


def _not_understood(error: Exception, arguments: Sequence[str]) -> int:
    if type(error).__name__ == "NoArgsIsHelpError":
        err.print(getattr(error, "message", None) or str(error), markup=False)  # the help itself
        return UsageError.exit_code
    told = getattr(error, "format_message", lambda: str(error))()  # names the option or argument
    message = told.replace("Value error, ", "").rstrip(".")
    context = getattr(error, "ctx", None)
    asked = "toolkit" if context is None else context.command_path
    return _tell(UsageError(message, next_step=f"see `{asked} --help`"), arguments)


def _tell(error: ToolkitError, arguments: Sequence[str]) -> int:
    """Print an error and return its exit code; waiting for a person has one of its own."""
    code = _WAITS if isinstance(error, ApprovalPending) else error.exit_code
    if "--json" in arguments:
        print_json({"error": error.to_json(), "exit_code": code})
    else:
        error_lines(error)
    return code


def _own_fault(error: Exception, arguments: Sequence[str]) -> int:
    """Keep the traceback in a file for the engineers and tell the user one sentence."""
    handle, path = tempfile.mkstemp(prefix="toolkit-fault-", suffix=".txt")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    fault = InfrastructureError(
        f"the toolkit itself failed: {type(error).__name__}: {error}",
        where=path,
        next_step="please report it with that file; `toolkit doctor` may show a cause",
    )
    return _tell(fault, arguments)
