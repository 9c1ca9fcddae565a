"""What a decision costs, and how long it takes to decide a week again.

``python -m benchmarks.policy [--calls N]`` prints a table and writes ``results/policy.json``.

The bundle has 5 typed tools, roles, an argument limit, two data-flow rules over argument roles and
an ``@ask``; the changed bundle forbids one more thing.  *Ours* is ``PolicyBundle.decide``: argument
check, context, Cedar, reasons.  The peer is cedarpy asked with the same policies parsed once and
the same context, whole, as JSON: what a gateway does that only calls the engine.  Every question of
the first two figures is new (no answer is remembered); the third repeats 100 questions.

The simulation reads N calls (default 100,000; a third are model calls of 2 kB, the rest tool calls
with labelled arguments) from a SQLite ledger and decides them again in one process, end to end as
``toolkit policy simulate`` does: reading, what each session had read, deciding, grouping.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cedarpy

from benchmarks.results import figure, machine, publish
from toolkit.app.simulations import simulate_bundle
from toolkit.app.workbench import Workbench
from toolkit.ledger import Ledger, Session
from toolkit.policy import Change, PolicyBundle, PolicyRequest, Reads
from toolkit.policy.context import build_context
from toolkit.settings import Settings, Workspace
from toolkit.values import (
    NO_LABELS,
    CallKind,
    CallState,
    DataClass,
    Decision,
    Effect,
    Environment,
    Intent,
    Labels,
    Outcome,
    RunKind,
    RunRecord,
    Source,
)

TOOLS = """
tools:
  inbox: {effect: read, description: Mail., labels: {sources: [untrusted], classes: [pii]},
          arguments: {limit: {type: integer, optional: true}}}
  orders: {effect: read, description: Orders., arguments: {customer: string, year: integer}}
  search: {effect: read, description: The web., external: true,
           arguments: {query: {type: string, role: content}}}
  pay: {effect: write, description: Pays., groups: [payments], external: true,
        arguments: {recipient: {type: string, role: destination}, amount: {type: number, role: amount},
                    memo: {type: string, optional: true, role: content}}}
  ticket: {effect: write, description: Opens a ticket., arguments: {title: string, text: string}}
"""
LIMITS = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "50", tokens: 500000000, calls: 5000000, seconds: 3600}
"""
RULES = """
@id("agents") permit(principal, action == Action::"call_agent", resource);
@id("results") permit(principal, action == Action::"publish_result", resource);
@id("models") permit(principal, action == Action::"call_model", resource)
when { [Route::"default", Route::"house"].contains(resource) };
@id("reads") permit(principal, action == Action::"call_tool", resource in Catalog::"tools")
when { context.effect == "read" };
@id("writes") permit(principal in Role::"clerk", action == Action::"call_tool", resource in Catalog::"tools")
when { context.effect == "write" };
@id("destinations") @reason("somebody outside may have chosen who is paid")
forbid(principal, action == Action::"call_tool", resource)
when { context.tainted_roles.contains("destination") };
@id("pii") @reason("personal data stays in the house")
forbid(principal, action == Action::"call_tool", resource)
when { context.external && context.classes.contains("pii") };
@id("large") @ask("approver") @reason("more than 500 needs a person")
forbid(principal, action == Action::"call_tool", resource == Tool::"pay")
when { context.arguments.amount.greaterThan(decimal("500.0")) };
@id("seen") @reason("an argument cannot be inspected")
forbid(principal, action, resource) when { context.effect == "write" } unless { context.omitted.isEmpty() };
"""
CHANGE = """
@id("calm") @reason("no payments after a run has read what outsiders wrote")
forbid(principal, action == Action::"call_tool", resource in Group::"payments")
when { context.session.sources.contains("untrusted") };
"""
MAIL = Labels(frozenset({Source.UNTRUSTED}), frozenset({DataClass.PII}))
MINE = Labels(frozenset({Source.USER}))
TEXT = "Which of these invoices is due, and to whom do we owe it? " * 36


def write_registry(root: Path, rules: str) -> Path:
    """Write a registry with one bundle and return the bundle's folder."""
    folder = root / "policies" / "production"
    folder.mkdir(parents=True)
    (root / "tools.yaml").write_text(TOOLS, "utf-8")
    (root / "people.yaml").write_text("people: {ana: {team: desk, roles: [clerk]}}\n", "utf-8")
    (folder / "policy.yaml").write_text(LIMITS, "utf-8")
    (folder / "rules.cedar").write_text(rules, "utf-8")
    return folder


def requests(count: int, seed: int) -> list[PolicyRequest]:
    """Return questions as a gateway would put them, none twice."""
    chance = random.Random(seed)  # noqa: S311 - figures that can be repeated
    found = []
    for number in range(count):
        kind = chance.choice(["model", "inbox", "orders", "search", "pay", "ticket"])
        found.append(_request(kind, number, chance))
    return found


def _request(kind: str, number: int, chance: random.Random) -> PolicyRequest:
    base = PolicyRequest(
        "ana", "call_tool", kind, Environment.PRODUCTION, team="desk", roles=("clerk",),
        job="desk", version=3, agent="clerk",
    )  # fmt: skip
    if kind == "model":
        messages = [{"role": "user", "content": f"{number}: {TEXT}"}]
        return replace(
            base, action="call_model", resource="default", route="default",
            arguments={"messages": messages, "max_tokens": 400}, labels={"messages": MINE},
        )  # fmt: skip
    by_tool: dict[str, dict[str, Any]] = {
        "inbox": {"limit": number},
        "orders": {"customer": f"c-{number}", "year": 2026},
        "search": {"query": f"invoice {number}"},
        "pay": {"recipient": f"DE{number:020}", "amount": chance.randint(1, 60_000) / 100},
        "ticket": {"title": f"Ticket {number}", "text": TEXT[:400]},
    }
    arguments = by_tool[kind]
    tainted = chance.random() < 0.02
    labels = dict.fromkeys(arguments, MAIL if tainted else MINE)
    effect = Effect.WRITE if kind in ("pay", "ticket") else Effect.READ
    return replace(base, arguments=arguments, labels=labels, effect=effect)


def per_call_us(ask: Callable[[PolicyRequest], Any], asked: Sequence[PolicyRequest]) -> float:
    """Return CPU time: other work on the machine is not the policy's."""
    started = time.process_time()
    for request in asked:
        ask(request)
    return (time.process_time() - started) / len(asked) * 1e6


def engine_alone(bundle: PolicyBundle) -> Callable[[PolicyRequest], Any]:
    """The peer: cedarpy with everything parsed once, and the whole context of each question."""
    policies = cedarpy.PolicySet.from_str("\n".join(p.text for p in bundle.policies))

    def ask(request: PolicyRequest) -> Any:
        kind = "Tool" if request.action == "call_tool" else "Route"
        entry = bundle.tools.get(request.resource)
        context = build_context(request, bundle.environment, entry, Reads(None, None, None))
        groups = [] if entry is None else [{"type": "Group", "id": g} for g in entry.groups]
        parents = [] if entry is None else [{"type": "Catalog", "id": "tools"}, *groups]
        roles = [{"type": "Role", "id": r} for r in request.roles]
        entities = [
            {"uid": {"type": "User", "id": request.user}, "attrs": {}, "parents": roles},
            {"uid": {"type": kind, "id": request.resource}, "attrs": {}, "parents": parents},
        ]
        question = {
            "principal": {"type": "User", "id": request.user},
            "action": {"type": "Action", "id": request.action},
            "resource": {"type": kind, "id": request.resource},
            "context": context,
        }
        return cedarpy.is_authorized(question, policies, entities)

    return ask


def fill(ledger: Ledger, bundle: PolicyBundle, calls: int) -> None:
    """Record calls with the decisions that the bundle takes."""
    per_run, chance = 50, random.Random(7)  # noqa: S311
    for first in range(0, calls, 1_000):
        works: list[Callable[[Session], Any]] = []
        for number in range(first, min(first + 1_000, calls)):
            run_id = f"run-{number // per_run:06}"
            if number % per_run == 0:
                ledger.create_run(
                    RunRecord(
                        run_id, RunKind.RUN, Environment.PRODUCTION, "ana", team="desk", job="desk"
                    )
                )
            kind = chance.choice(["model", "model", "inbox", "orders", "pay", "ticket"])
            request = _request(kind, number, chance)
            works.append(_recording(run_id, number, request, bundle.decide(request)))
        for result in ledger.write_all(works):
            if isinstance(result, Exception):
                raise result


def _recording(
    run_id: str, number: int, request: PolicyRequest, decision: Decision
) -> Callable[[Session], Any]:
    intent = Intent(
        run_id=run_id,
        kind=CallKind.MODEL if request.action == "call_model" else CallKind.TOOL,
        name=request.resource,
        arguments=request.arguments,
        request_id=f"r-{number}",
        effect=request.effect,
        agent=request.agent,
        labels=dict(request.labels),
    )
    labels = MAIL if request.resource == "inbox" else NO_LABELS

    def work(session: Session) -> None:
        call = session.begin(intent, decision, reserve=None).call
        if decision:
            session.finish(call, Outcome(CallState.OK, answer=TEXT[:300], labels=labels))

    return work


def processor_s() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> None:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000)
    wanted = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="bench-policy-"))
    try:
        present = PolicyBundle.load(write_registry(root / "registry", RULES))
        changed = write_registry(root / "changed", RULES + CHANGE)
        ours, peers, again = [], [], []
        alone = engine_alone(present)
        for seed in range(5):
            asked = requests(4_000, seed)
            ours.append(per_call_us(present.decide, asked))
            peers.append(per_call_us(alone, asked[:2_000]))
            again.append(per_call_us(present.decide, asked[:100] * 40))
        (root / "toolkit.toml").write_text('user = "bench"\n', "utf-8")
        workspace = Workspace(root, Settings())
        with Ledger.open(workspace.database_url) as ledger:
            fill(ledger, present, wanted.calls)
        bench = Workbench(workspace)
        started, worked = time.perf_counter(), processor_s()
        found = simulate_bundle(bench, environment=Environment.PRODUCTION, folder=changed)
        took, busy = time.perf_counter() - started, processor_s() - worked
        bench.close()
        conditions = f"{machine()}; median of 5 rounds of 4,000 different questions, CPU time; 9 policies, 5 tools"
        past = (
            f"{found.calls:,} recorded calls, {found.count(Change.NEWLY_DENIED):,} newly denied, "
            f"{found.same:,} the same; one process per core, SQLite, aim: at most 15 s per 100,000"
        )
        middle: Callable[[list[float]], float] = lambda values: sorted(values)[len(values) // 2]  # noqa: E731
        publish(
            "policy",
            {
                "decision, new question": figure(
                    middle(ours), middle(peers), "µs", conditions, lower_is_better=True, digits=1
                ),
                "decision, asked before": figure(
                    middle(again), middle(peers), "µs", conditions, lower_is_better=True, digits=1
                ),
                "simulation, wall": figure(took, None, "s", past, digits=2),
                "simulation, CPU": figure(busy, None, "s", past, digits=2),
                "simulation, CPU per call": figure(
                    busy / found.calls * 1e6, None, "µs", past, digits=1
                ),
            },
        )
        print(json.dumps(found.to_json()["counts"]))
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
