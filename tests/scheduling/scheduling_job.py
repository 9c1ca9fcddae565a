"""A stand-in for ``toolkit run``: ``scheduling_job.py FOLDER RUN_ID ATTEMPT BEHAVIOUR``.

It appends ``started`` and ``ended`` lines to FOLDER/trace with O_APPEND, and behaves as told:
``0`` exits with that code; ``75,0`` exits with the first code on attempt 1, the second on 2;
``sleep:S:C`` sleeps S seconds and exits with C; ``kill`` kills itself;
``wait:FILE:C`` exits with 3 unless FILE is there, then with C.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

folder, run_id, attempt, behaviour = Path(sys.argv[1]), *sys.argv[2:5]


def note(what: str) -> None:
    fd = os.open(folder / "trace", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{what} {run_id} {os.getpid()}\n".encode())
    os.close(fd)


def asked_to_end(*_: object) -> None:
    note("terminated")
    sys.exit(143)


signal.signal(signal.SIGTERM, asked_to_end)
note("started")
kind, _, rest = behaviour.partition(":")
code = 0
if kind == "sleep":
    seconds, _, last = rest.partition(":")
    time.sleep(float(seconds))
    code = int(last)
elif kind == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
elif kind == "wait":
    name, _, last = rest.partition(":")
    code = int(last) if (folder / name).exists() else 3
else:
    codes = [int(text) for text in kind.split(",")]
    code = codes[min(int(attempt), len(codes)) - 1]
if code:
    sys.stderr.write(f"an error\n\x1b[31mit ends with {code}\x1b[0m\n\n")
note("ended")
sys.exit(code)
