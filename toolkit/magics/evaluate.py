"""``%evaluate``: an evaluation set against an agent of this kernel; the gateway keeps the labels."""

from __future__ import annotations

import html
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

from toolkit.client import Connection, serve_cases
from toolkit.errors import UsageError
from toolkit.magics import cards
from toolkit.values import CallKind

__all__ = ["SCORE", "START", "evaluate", "find_agent"]

START = "/toolkit/v1/evaluations/start"
SCORE = "/toolkit/v1/evaluations/score"
_MOST_WRONG = 20
_SCORES = ("scorer", "mean", "95 % interval", "cases")
_GATES = ("production gate", "observed", "verdict")
_WRONG = ("case", "output", "expected")


def find_agent(names: Mapping[str, Any], wanted: str | None) -> Callable[..., Any]:
    """Return the agent with this name, or the notebook's only one.

    Raises:
        UsageError: There is none, or several and none was named.
    """
    agents = {
        id(value): value
        for value in names.values()
        if getattr(value, "__toolkit_kind__", None) == CallKind.AGENT
    }
    found = [
        value
        for value in agents.values()
        if wanted in (None, value.__toolkit_name__, getattr(value, "__name__", None))
    ]
    if len(found) == 1:
        function: Callable[..., Any] = found[0]
        return function
    known = ", ".join(sorted({value.__toolkit_name__ for value in agents.values()})) or "none"
    problem = f"no agent is called {wanted!r}" if wanted else "no single agent to evaluate"
    raise UsageError(
        f"{problem}; this notebook has {known}",
        where="%evaluate",
        next_step="define one with @toolkit.agent or %%agent, or name it with --agent NAME",
    )


def evaluate(
    connection: Connection,
    name: str,
    function: Callable[..., Any],
    limit: int | None,
    trials: int | None = None,
) -> dict[str, str]:
    """Answer the set's cases with ``function`` and return the verdict as a mime bundle.

    Args:
        connection: The kernel's connection.
        name: The evaluation set.
        function: An agent made by ``@agent``.
        limit: Only the first cases; ``None`` means all.
        trials: How often each case is asked; ``None``: as often as the set says.

    Raises:
        ToolkitError: The set is unknown or has faults, or the gateway cannot score it.
    """
    label = function.__toolkit_name__  # type: ignore[attr-defined]  # set by @agent
    if limit is not None and limit < 1:
        raise UsageError(
            "--limit takes 1 or more", where="%evaluate", next_step="leave it out: all"
        )
    asked = {"set": name, "agent": label, "limit": limit, "trials": trials}
    asked["takes"] = _takes(function)
    started = connection.query(START, asked)
    serve_cases(function)
    verdict = connection.query(SCORE, {"evaluation_run_id": started["evaluation_run_id"]})
    answered = sum(not row.get("error") for row in verdict["rows"])
    count, times = started["cases"], started.get("trials", 1)
    what = f"{count} cases" if times == 1 else f"{count * times} trials ({times} of each case)"
    return _bundle(f"{name}: {answered} of {what} answered by {label}", verdict)


def _takes(function: Callable[..., Any]) -> dict[str, list[str]] | None:
    """Return what an agent may be and must be given by name; ``None``: anything."""
    found = inspect.signature(function).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in found):
        return None
    named = [each for each in found if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return {
        "known": [each.name for each in named],
        "required": [each.name for each in named if each.default is each.empty],
    }


def _bundle(title: str, verdict: dict[str, Any]) -> dict[str, str]:
    scores = [_score_row(*item) for item in sorted(verdict["scores"].items())]
    measured = _measured(verdict["rows"])
    gates = [_gate_row(gate) for gate in verdict["gates"]]
    better = verdict.get("better") or {}
    wrong = [row for row in verdict["rows"] if _is_wrong(row, better)]
    failed = any(not gate["passed"] for gate in verdict["gates"])
    told = "" if gates else "production has no gates for this set"
    body = f"<b>{html.escape(title)}</b>{cards.table(_SCORES, scores)}"
    body += cards.table(_GATES, gates) if gates else f"<div>{told}</div>"
    plain = [title, cards.text_table(_SCORES, scores)]
    plain.append(cards.text_table(_GATES, gates) if gates else told)
    if measured:
        body += f"<div>{html.escape(measured)}</div>"
        plain.append(measured)
    failures = _failures(verdict["rows"])
    body += "".join(f"<div>{html.escape(line)}</div>" for line in failures)
    plain += failures
    if wrong:
        rows = [_wrong_row(row) for row in wrong[:_MOST_WRONG]]
        head = f"{len(wrong)} wrong" + f", the first {_MOST_WRONG}" * (len(wrong) > _MOST_WRONG)
        body += f"<details><summary>{head}</summary>{cards.table(_WRONG, rows)}</details>"
        plain.append(f"{head}: {', '.join(row[0] for row in rows)}")
    return {
        "text/html": cards.box(body, cards.RED if failed else cards.GREEN),
        "text/plain": "\n".join(plain),
    }


def _is_wrong(row: dict[str, Any], better: Mapping[str, str]) -> bool:
    """Whether the agent failed, or a scorer said what is not the better of its two answers."""
    return bool(row.get("error")) or any(
        bool(value) != (better.get(name, "yes") == "yes") for name, value in row["scores"].items()
    )


def _measured(rows: list[dict[str, Any]]) -> str:
    """Say what an answer cost and took on average; of answers whose price is known."""
    told = []
    for name, unit in (("usd", "USD"), ("seconds", "s")):
        values = [row["measures"][name] for row in rows if name in row.get("measures", {})]
        if values:
            of = "" if len(values) == len(rows) else f" ({len(values)} of {len(rows)} known)"
            told.append(f"{sum(values) / len(values):.4g} {unit}{of}")
    return f"an answer: {', '.join(told)} on average" if told else ""


def _failures(rows: list[dict[str, Any]]) -> list[str]:
    """Say of each scorer that failed how often, and why the first time."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for scorer, why in (row.get("failures") or {}).items():
            found.setdefault(scorer, []).append(f"{row['case_id']}: {why}")
    return [f"{name} failed on {len(whys)} answers ({whys[0]})" for name, whys in found.items()]


def _score_row(name: str, score: dict[str, Any]) -> tuple[str, ...]:
    low, high = score.get("lower"), score.get("upper")
    interval = "" if low is None else f"{_number(low)} – {_number(high)}"
    return name, _number(score.get("mean")), interval, str(score.get("n", ""))


def _gate_row(gate: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(gate["sentence"]),
        _number(gate.get("observed")),
        "passed" if gate["passed"] else "failed",
    )


def _wrong_row(row: dict[str, Any]) -> tuple[str, ...]:
    shown = row.get("error") or row.get("output")
    trial = row.get("trial", 1)
    name = f"{row['case_id']}{f'#{trial}' if trial != 1 else ''}"
    return name, _short(shown), _short(row.get("expected"))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 300 else f"{text[:300]}…"
