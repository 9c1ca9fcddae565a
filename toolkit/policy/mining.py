"""The least that a notebook needs: policies, budget and tool entries from what it did.

For every tool, route, agent, job, source and result that was called there is one permit.  A tool
argument is held to the values that were seen where these are few and short (at most 8 values of
at most 80 characters), a number to the range that was seen, anything else to its type alone; the
notes say which.  The arguments are held one by one, so values of two calls may be combined.  A data
source is held to the tables (or paths) and columns that were read, and to reading if nothing was written.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal
from typing import TypeVar

from toolkit.policy.inference import cedar_text, conditions, infer_arguments
from toolkit.policy.tools import ToolCatalog, ToolEntry
from toolkit.policy.tools_text import catalog_text
from toolkit.values import CallKind, Effect, Money

__all__ = ["Mined", "RunUse", "SeenCall", "mine"]

T = TypeVar("T", int, Decimal)
_MARGIN = Decimal("1.25")
_SPARE_S = 60
_MOST_CONDITION = 8_000
_CENT = Decimal("0.01")
_ENTITIES = {
    CallKind.MODEL: ("call_model", "Route"),
    CallKind.TOOL: ("call_tool", "Tool"),
    CallKind.AGENT: ("call_agent", "Agent"),
    CallKind.DATA: ("call_data", "Data"),
    CallKind.JOB: ("call_job", "Job"),
    CallKind.HUMAN: ("call_human", "Human"),
    CallKind.RESULT: ("publish_result", "Result"),
}


@dataclass(frozen=True, slots=True)
class SeenCall:
    """One recorded call that was let through.

    Attributes:
        kind, name: What was called; for a model call the route that was taken.
        effect, arguments: As they were recorded.
        read: Of a data source that answered, the tables and columns that were read; ``None``
            where they are not recorded.
        answered: Whether it did what it was asked.
    """

    kind: CallKind
    name: str
    effect: Effect = Effect.READ
    arguments: object = None
    read: tuple[frozenset[str], frozenset[str]] | None = None
    answered: bool = True


@dataclass(frozen=True, slots=True)
class RunUse:
    """What one run used.

    Attributes:
        usd: The known costs.
        unpriced_calls: Model calls whose cost is not known.
        tokens, calls, seconds: As budgets count them; seconds of top-level calls.
    """

    usd: Money
    unpriced_calls: int
    tokens: int
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Mined:
    """A proposal.

    Attributes:
        files: Text by path below ``registry/``.
        notes: What a person should know before using it.
        calls, runs: What it was made from.
    """

    files: dict[str, str]
    notes: tuple[str, ...]
    calls: int
    runs: int


def mine(
    seen: Iterable[SeenCall], uses: Sequence[RunUse], tools: ToolCatalog, *, job: str | None = None
) -> Mined:
    """Propose a production bundle that allows what was seen, and as little else as it can.

    Args:
        seen: The calls.
        uses: What each run used; at least one.
        tools: The present catalog; its entries are kept where what was seen fits them.
        job: Limits every permit to one job.
    """
    groups: dict[tuple[CallKind, str], list[SeenCall]] = {}
    count = 0
    for call in seen:
        groups.setdefault((call.kind, call.name), []).append(call)
        count += 1
    notes: list[str] = []
    entries: dict[str, ToolEntry] = {}
    policies = []
    for (kind, name), calls in sorted(groups.items()):
        wanted: list[str] = []
        if kind is CallKind.TOOL:
            entry, wanted, found = _tool(name, calls, tools.get(name))
            entries[name] = entry
            notes.extend(found)
        if kind is CallKind.DATA:
            wanted, found = _data(name, calls)
            notes.extend(found)
        policies.append(_permit(kind, name, wanted, job))
    header = f"// Mined from {count} calls of {_runs(uses)}; read it before you use it.\n"
    files = {
        "policies/production/policy.yaml": _policy_yaml(uses, groups, notes),
        "policies/production/mined.cedar": header + "\n".join(policies),
        "tools.yaml": catalog_text(entries.values()),
    }
    return Mined(files, tuple(notes), count, len(uses))


def _tool(
    name: str, calls: Sequence[SeenCall], known: ToolEntry | None
) -> tuple[ToolEntry, list[str], list[str]]:
    """Return the entry, what is asked of its arguments, and notes."""
    effect = Effect.WRITE if any(c.effect is Effect.WRITE for c in calls) else Effect.READ
    if known is None:
        known = ToolEntry(name, effect, f"Mined: say in one sentence what {name} does.")
    elif effect is Effect.WRITE and known.effect is Effect.READ:
        known = known.with_effect(effect)
    given = [call.arguments for call in calls]
    notes = []
    if known.arguments is None or any(known.check_arguments(each) for each in given):
        arguments = infer_arguments(given)
        if arguments is None:
            notes.append(f"tool {name}: its arguments cannot be declared, so they are not limited")
        known = known.with_arguments(arguments)
    if known.arguments is None:
        return known, [], notes
    wanted, free = conditions(known.arguments, given)
    if sum(map(len, wanted)) > _MOST_CONDITION:
        wanted, free = [], list(known.arguments)
    notes.extend(f"tool {name}: the values of {argument} are not limited" for argument in free)
    return known, wanted, notes


def _data(name: str, calls: Sequence[SeenCall]) -> tuple[list[str], list[str]]:
    """Return what is asked of the tables and columns of a source, and notes."""
    wanted = [] if any(call.effect is Effect.WRITE for call in calls) else ["!context.write"]
    answered = [call for call in calls if call.answered]
    reads = [call.read for call in answered if call.read is not None]
    if len(reads) < len(answered):
        why = f"data {name}: tables and columns of some calls are not recorded, so they are not limited"
        return wanted, [why]
    notes = []
    if not answered:
        notes.append(f"data {name}: no call was answered, so no table is permitted")
    for place, member in enumerate(("tables", "columns")):
        held = _within(member, frozenset[str]().union(*(read[place] for read in reads)))
        if len(held) > _MOST_CONDITION:
            notes.append(f"data {name}: its {member} are too many to be listed, and not limited")
        else:
            wanted.append(held)
    return wanted, notes


def _within(member: str, names: frozenset[str]) -> str:
    if not names:
        return f"context.{member}.isEmpty()"
    listed = ", ".join(f'"{cedar_text(name)}"' for name in sorted(names))
    return f"[{listed}].containsAll(context.{member})"


def _permit(kind: CallKind, name: str, wanted: list[str], job: str | None) -> str:
    action, entity = _ENTITIES[kind]
    if job is not None:
        wanted = [f'context has job && context.job == "{cedar_text(job)}"', *wanted]
    when = "\nwhen {\n    " + " &&\n    ".join(f"({each})" for each in wanted) + "\n}"
    return (
        f'@id("mined-{kind.value}-{cedar_text(name)}")\n'
        f'permit(principal, action == Action::"{action}", resource == '
        f'{entity}::"{cedar_text(name)}"){when if wanted else ""};\n'
    )


def _policy_yaml(
    uses: Sequence[RunUse], groups: dict[tuple[CallKind, str], list[SeenCall]], notes: list[str]
) -> str:
    dollars = _p99([use.usd.usd for use in uses]) * _MARGIN
    usd = max(_CENT, dollars.quantize(_CENT, ROUND_CEILING))
    unpriced = any(use.unpriced_calls for use in uses)
    if unpriced:
        notes.append("the price of some model calls is not known, so unknown_price is `allow`")
    tokens = _with_margin([use.tokens for use in uses])
    calls = _with_margin([use.calls for use in uses])
    seconds = _with_margin([math.ceil(use.seconds) for use in uses]) + _SPARE_S
    if any(kind is CallKind.MODEL for kind, _ in groups):
        notes.append(
            "budget: a call is held at the most that it can use before it is made; leave room for "
            "one call with the route's max_tokens"
        )
    results = any(kind is CallKind.RESULT for kind, _ in groups)
    notes.append("gates: keep those of the present policy.yaml; a promotion needs them")
    return f"""\
# Mined from {_runs(uses)}: the 99th percentile of what a run used, and a quarter more.
environment: production
mode: enforce
unknown_price: {"allow" if unpriced else "deny"}
minimum_isolation: limits
require_results: {"true" if results else "false"}
budget:
  usd: "{usd}"
  tokens: {tokens}
  calls: {calls}
  seconds: {seconds}        # of the calls themselves, and a minute for the notebook
gates: {{}}
"""


def _p99(values: Sequence[T]) -> T:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * 0.99) - 1)]


def _with_margin(values: Sequence[int]) -> int:
    return math.ceil(_p99(values) * _MARGIN)


def _runs(uses: Sequence[RunUse]) -> str:
    return "1 run" if len(uses) == 1 else f"{len(uses)} runs"
