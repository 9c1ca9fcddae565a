"""The `toolkit` command: all commands of all modules, and one place for errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
import typer

from toolkit.cli import governing, notebooks, running, scheduling, workspaces
from toolkit.cli.show import err, error_lines, print_json
from toolkit.errors import ToolkitError

__all__ = ["app", "main"]

app = typer.Typer(
    name="toolkit",
    help="From an agent in a notebook to a governed, durable job.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

workspaces.register(app)
notebooks.register(app)
running.register(app)
scheduling.register(app)
governing.register(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; console script and ``python -m toolkit``."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = typer.main.get_command(app)
    try:
        result = command.main(arguments, prog_name="toolkit", standalone_mode=False)
    except ToolkitError as error:
        if "--json" in arguments:
            print_json({"error": error.to_json(), "exit_code": error.exit_code})
        else:
            error_lines(error)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        err.print(error.format_message(), markup=False)
        return 2
    except click.ClickException as error:
        err.print(f"error {error.format_message()}", markup=False)
        err.print("  next see `toolkit --help`, or `toolkit COMMAND --help`", markup=False)
        return 2
    except (click.Abort, KeyboardInterrupt):
        err.print("stopped", markup=False)
        return 143
    except BrokenPipeError:  # `toolkit runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        err.print(f"error {error.strerror or error}: {error.filename or ''}", markup=False)
        return 75
    return result if isinstance(result, int) else 0
