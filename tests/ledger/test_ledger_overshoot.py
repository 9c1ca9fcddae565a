"""Many processes on a budget for four calls: four calls are made, in every round."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest
from ledger_world import a_run

from toolkit.ledger import Ledger

# Each process makes as many calls as it can get; what it paid is what a provider would bill.
_WORKER = """
import json, sys
from toolkit.errors import BudgetExceeded
from toolkit.ledger import Ledger, LedgerWriter, Limit, Reservation
from toolkit.values import CallState, Money, Outcome
from ledger_world import ALLOW, an_intent

url, who, processes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
ledger = Ledger.open(url)
writer = LedgerWriter(ledger)
print("ready", flush=True)
for line in sys.stdin:
    number = int(line)
    limits = (Limit(f"round:{number}", usd=Money(400)), Limit(f"team:{number}", calls=4),
              Limit("user:all", concurrent=processes))
    reserve = Reservation(limits, Money(100))
    made = []
    for attempt in range(2):
        intent = an_intent({"n": number, "who": who, "a": attempt}, run_id=f"run-{who}",
                           request_id=f"{number}-{who}-{attempt}")
        try:
            if who % 2:
                call = ledger.begin(intent, ALLOW, reserve=reserve).call
            else:
                call = writer.begin(intent, ALLOW, reserve=reserve).result().call
        except BudgetExceeded:
            continue
        paid = 100 - (who + number + attempt) % 3
        ledger.finish(call, Outcome(CallState.OK, cost=Money(paid)))
        made.append(paid)
    print(json.dumps(made), flush=True)
writer.close()
"""


def _rounds(url: str, request, processes: int, rounds: int) -> tuple[int, int]:
    """Return calls beyond the budgets and the difference of settled and billed, over all rounds."""
    command = [sys.executable, "-c", _WORKER, url]
    environment = {"PYTHONPATH": f"{request.config.rootpath}:{request.path.parent}"}
    with Ledger.open(url) as ledger, ExitStack() as stack:
        for who in range(processes):
            a_run(ledger, f"run-{who}")
        workers = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, str(who), str(processes)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    env=environment,
                )
            )
            for who in range(processes)
        ]
        assert [worker.stdout.readline() for worker in workers] == ["ready\n"] * processes
        over = wrong = 0
        for number in range(rounds):
            for worker in workers:
                worker.stdin.write(f"{number}\n")
                worker.stdin.flush()
            billed = [paid for worker in workers for paid in json.loads(worker.stdout.readline())]
            over += max(0, len(billed) - 4)
            assert len(billed) == 4, f"round {number}: {len(billed)} calls were made"
            settled = ledger.budget(f"round:{number}")
            wrong += abs(settled.spent.nanos - sum(billed))
            assert (settled.reserved.nanos, settled.reserved_calls) == (0, 0)
        for worker in workers:
            worker.stdin.close()
        assert [worker.wait() for worker in workers] == [0] * processes
        assert ledger.verify() == []
    return over, wrong


@pytest.mark.slow
def test_processes_never_overshoot_and_the_sum_is_the_providers(url, request):
    """Eight processes, ten rounds: four calls each round, and every nano accounted for."""
    assert _rounds(url, request, processes=8, rounds=10) == (0, 0)


@pytest.mark.scale
@pytest.mark.timeout(900)
def test_sixty_four_processes_never_overshoot_in_a_hundred_rounds(url, request):
    """The same at the size at which other gateways were seen to overshoot."""
    assert _rounds(url, request, processes=64, rounds=100) == (0, 0)
