"""Where the milliseconds of a call go: processor time of each part, alone, in one process.

Printed by ``python -m benchmarks.gateway``.  Each part is run by itself a few hundred times with the
call of the benchmark, and the least mean of several rounds counts: processor time of the thread, so
that a loaded machine shifts it little.  What is left of the whole is HTTP, the event loop, tasks
and the ledger's thread taking turns with it.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import uvloop

from toolkit.gateway import Governance, Screen
from toolkit.gateway.flow import Flow
from toolkit.gateway.modelling import model_request
from toolkit.gateway.scopes import reservation, switches
from toolkit.gateway.work import Facts, Worst
from toolkit.ledger import Ledger
from toolkit.providers import CallContext, Providers, worst_case
from toolkit.values import (
    CallKind,
    CallState,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    RunState,
    Usage,
)

__all__ = ["parts"]

_ROUNDS, _TIMES = 5, 200


def parts(registry: Path, prompt: str, answer: str) -> dict[str, float]:
    """Return milliseconds of processor time by part.

    Args:
        registry: The registry of the measured gateway: its policies and its upstream.
        prompt: What the benchmark asks.
        answer: What its upstream answers.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-parts-") as folder,
        Ledger.open(f"sqlite:///{folder}/ledger.db") as ledger,
    ):
        return _Bench(registry, prompt, answer, ledger).measured()


class _Bench:
    def __init__(self, registry: Path, prompt: str, answer: str, ledger: Ledger) -> None:
        self.governance, self.ledger = Governance(registry), ledger
        self.screen, self.flow = Screen(), Flow(Screen().detector)
        self.run = ledger.create_run(
            RunRecord(
                "session-parts",
                RunKind.SESSION,
                Environment.SANDBOX,
                "bench",
                state=RunState.RUNNING,
            )
        )
        self.prompt, self.number = prompt, 0
        self.route = self.governance.route("default")
        self.bundle = self.governance.bundle(Environment.SANDBOX)
        body: dict[str, Any] = {
            "text": answer,
            "data": None,
            "tool_calls": [],
            "finish_reason": "stop",
        }
        self.outcome = Outcome(
            CallState.OK, body, usage=Usage(140, 48), cost=Money(1_000), provider="upstream"
        )

    def intent(self) -> Intent:
        self.number += 1
        messages = [{"role": "user", "content": f"{self.number} {self.prompt}"}]
        arguments = {"messages": messages, "max_tokens": 64}
        return Intent(
            "session-parts", CallKind.MODEL, "default", arguments, request_id=str(self.number)
        )

    def measured(self) -> dict[str, float]:
        """Time every part."""
        made = {
            "JSON in and out": self._json,
            "digest and key": lambda: self.intent().key,
            "screening of arguments": lambda: self.screen.arguments(
                self.run, self.intent(), self.bundle.privacy
            ),
            "screening of the answer": lambda: self.screen.outcome(
                self.run, self.outcome, self.bundle.privacy
            ),
            "labels of arguments": lambda: self.flow.label(self.run, self.intent()),
            "labels of the answer, remembered": self._remember,
            "worst case": lambda: worst_case(
                self.route, model_request(self.intent().arguments), CallContext()
            ),
            "Cedar, sandbox and production": lambda: self.governance.decide(
                self.run, self.intent(), Facts(self.route)
            ),
            "intent and outcome in the ledger": self._record,
        }
        found = {name: _least(work) for name, work in made.items()}
        making = _least(self.intent)
        found = {
            name: ms if name in {"JSON in and out", "screening of the answer"} else ms - making
            for name, ms in found.items()
        }
        return {**found, "request to the provider": uvloop.run(self._provider())}

    def _json(self) -> None:
        orjson.loads(orjson.dumps(self.intent().arguments))
        orjson.dumps(self.outcome.answer)

    def _remember(self) -> None:
        intent = self.intent()
        labels = self.flow.answer_labels(
            self.run, intent, self.outcome, self.flow.session("session-parts"), pii=False
        )
        self.flow.remember(self.run, intent, self.outcome.answer, labels)

    def _record(self) -> None:
        intent, worst = self.intent(), Worst(Money(10_000), 2_000, seconds=60)
        decision = self.governance.decide(self.run, intent, Facts(self.route))
        reserve = reservation(
            lambda _: self.bundle, self.run, intent, worst, time.time_ns() // 1000
        )
        scopes = switches(self.run, intent, Facts(self.route))
        outcome = replace(self.outcome, seconds=0.1)
        begun = self.ledger.write_at_once(
            lambda s: s.begin(intent, decision, reserve=reserve, switches=scopes)
        )
        self.ledger.write_at_once(lambda s: s.finish(begun.call, outcome))
        self.ledger.sync()
        self.ledger.tidy()

    async def _provider(self) -> float:
        providers = Providers(self.governance.catalog(), environ={})
        request, least = model_request(self.intent().arguments), float("inf")
        try:
            for _ in range(_ROUNDS):
                start = time.thread_time()
                for _ in range(_TIMES):
                    await providers.complete(self.route, request)
                least = min(least, (time.thread_time() - start) / _TIMES * 1000)
        finally:
            await providers.close()
            await asyncio.sleep(0)
        return least


def _least(work: Callable[[], object]) -> float:
    least = float("inf")
    for _ in range(_ROUNDS):
        start = time.thread_time()
        for _ in range(_TIMES):
            work()
        least = min(least, (time.thread_time() - start) / _TIMES * 1000)
    return least
