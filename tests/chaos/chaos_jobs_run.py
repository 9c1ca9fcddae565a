"""A light stand-in for ``toolkit run``: ``chaos_jobs_run.py LEDGER RUN_ID SERVER``.

It keeps the rule of the gateway with the real ledger: intent, effect, outcome.  A recorded outcome
is not repeated; an intent without one ends the run, so that a person sees it.
"""

from __future__ import annotations

import sys
import time
import urllib.request

from toolkit.errors import InfrastructureError
from toolkit.ledger import Ledger
from toolkit.values import (
    CallKind,
    CallState,
    Decision,
    Effect,
    Environment,
    Intent,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Verdict,
    new_id,
)

EFFECTS = 2
DOUBT = "a write is in doubt"


def effect(ledger: Ledger, run_id: str, number: int, server: str) -> bool:
    """Write once; return whether the call is finished, now or before."""
    intent = Intent(
        run_id, CallKind.TOOL, "post", {"n": number}, request_id=new_id("r"), effect=Effect.WRITE
    )
    begun = ledger.begin(intent, Decision(Verdict.ALLOW))
    if not begun.fresh:
        return begun.call.outcome is not None
    with urllib.request.urlopen(f"{server}/{run_id}/{number}", data=b"", timeout=20):
        pass
    time.sleep(0.05)
    ledger.finish(begun.call, Outcome(CallState.OK, answer=number))
    return True


def main(url: str, run_id: str, server: str) -> int:
    with Ledger.open(url) as ledger:
        run = ledger.create_run(
            RunRecord(run_id, RunKind.RUN, Environment.PRODUCTION, "ana", RunState.RUNNING)
        )
        if run.state.terminal:
            return 0 if run.state is RunState.SUCCEEDED else 1
        for number in range(EFFECTS):
            if not effect(ledger, run_id, number, server):
                ledger.update_run(run_id, state=RunState.FAILED, message=DOUBT)
                sys.stderr.write(f"{DOUBT}\n")
                return 1
        ledger.update_run(run_id, state=RunState.SUCCEEDED)
        return 0


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:4]))
    except InfrastructureError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(75)
