"""The command line: parse, call, show.

Rules
-----
* Every command takes ``--json`` and then prints one JSON document on standard output, nothing else.
* Progress and warnings go to standard error; results to standard output.
* A user never sees a traceback: an error is one sentence, the place and the next step.
* Exit codes: 0 ok · 1 the notebook or a gate failed · 2 usage · 3 waiting · 75 try again ·
  78 configuration · 99 skipped · 124 timeout · 143 cancelled.
* Start-up stays quick: rooms are imported by the command that needs them.
"""

from __future__ import annotations

from toolkit.cli import quick as _quick  # noqa: F401 - before all that is loaded for a command
from toolkit.cli.main import app, main

__all__ = ["app", "main"]
