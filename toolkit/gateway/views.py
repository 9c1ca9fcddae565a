"""A call for the eyes of the person who decides about it: JSON values that hold plain text only.

Whatever came from a notebook, a model or a stranger is shown as JSON text with control characters
and characters that turn text around escaped, so that it can look like nothing but itself.  The
entrances (terminal, notebook, webhook) escape for their own markup as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from toolkit.gateway.work import Worst
from toolkit.values import (
    ANSWER,
    IN_DOUBT,
    CallKind,
    CallRecord,
    DataClass,
    Decision,
    Labels,
    RunRecord,
    Source,
)

__all__ = ["ViewedTool", "describe_call", "plain", "visible"]

_MOST_ARGUMENTS = 50
_MOST_CHARACTERS = 2_000
_TAIL = 200
_MOST_REASON = 500

_CAME_FROM = {
    Source.UNTRUSTED: "came from untrusted data",
    Source.DERIVED: "may come from untrusted data that the run has read",
    Source.INTERNAL: "came from an internal system",
    Source.USER: "written by the user or the notebook",
}
_HOLDS = {
    DataClass.PII: "holds personal data",
    DataClass.CONFIDENTIAL: "is confidential",
    DataClass.INTERNAL: "is internal",
}


class ViewedTool(Protocol):
    """What a catalogued tool says about how its calls are shown."""

    def render_view(self, arguments: Any) -> str:
        """Return one line about a call, with values escaped."""
        ...


def describe_call(
    run: RunRecord,
    call: CallRecord,
    *,
    tool: ViewedTool | None = None,
    worst: Worst,
    origins: Mapping[str, Iterable[str]],
) -> dict[str, Any]:
    """Return the view that is stored with a request.

    Args:
        run: The caller.
        call: The call, with the decision that asks for a person.
        tool: Its entry in the tool catalog, if it has one.
        worst: The most that it can cost.
        origins: By argument: names of the calls whose answers it was found in.

    Returns:
        ``title`` (one line), ``call``, ``arguments`` (name, value, origin), ``reasons`` (the
        policies' own sentences), ``facts`` (name, value) and ``changeable``: whether the
        arguments may be changed on approval.  ``kind`` is ``in_doubt`` where the question is
        whether a write happened, ``answer`` where a person answers in the place of a model.
    """
    intent = call.intent
    doubt = intent.kind is CallKind.HUMAN and intent.name == IN_DOUBT
    answer = intent.kind is CallKind.HUMAN and intent.name == ANSWER
    title = f"{intent.kind.value} {intent.name}"
    if answer:
        title = f"Answer for the models of the route {intent.arguments['route']}"
    elif doubt:
        title = f"Did {intent.arguments['tool']} happen? Nobody recorded how it ended"
    elif tool is not None:
        title = tool.render_view(intent.arguments)
    return {
        "title": plain(title, _MOST_REASON),
        "call": plain(f"{intent.kind.value} {intent.name}"),
        "arguments": [
            {
                "name": plain(name, 100),
                "value": visible(value),
                "origin": _origin(intent.labels.get(name), origins.get(name, ())),
            }
            for name, value in _parts(intent.arguments)
        ],
        "reasons": [plain(reason, _MOST_REASON) for reason in call.decision.reasons],
        "facts": [[name, plain(value, 200)] for name, value in _facts(run, call, worst)],
        "changeable": intent.kind is CallKind.TOOL,
        **({"kind": "in_doubt"} if doubt else {"kind": ANSWER} if answer else {}),
    }


def shows(view: Any, call: CallRecord) -> bool:
    """Whether a stored view tells a call's name and arguments as they are recorded."""
    if not isinstance(view, dict):
        return False
    kind, name = call.intent.kind.value, call.intent.name
    told = [(part["name"], part["value"]) for part in view["arguments"]]
    parts = _parts(call.intent.arguments)
    return view["call"] == plain(f"{kind} {name}") and told == [
        (plain(part, 100), visible(value)) for part, value in parts
    ]


def visible(value: Any) -> str:
    """Return a JSON value as one line of text that cannot pose as anything else.

    Of a long value both ends are shown, so that nothing hides behind the cut unsaid.
    """
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _MOST_CHARACTERS:
        left_out = len(text) - _MOST_CHARACTERS
        head, tail = text[: _MOST_CHARACTERS - _TAIL], text[-_TAIL:]
        text = f"{head} … [{left_out:,} characters left out] … {tail}"
    return plain(text, 2 * _MOST_CHARACTERS)


def plain(text: object, most: int = 200) -> str:
    """Return text on one line without control, direction and other invisible characters."""
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: most + 1])
    return shown if len(str(text)) <= most else f"{shown[:most]}…"


def _parts(arguments: Any) -> list[tuple[str, Any]]:
    if not isinstance(arguments, dict):
        return [("value", arguments)]
    parts = list(arguments.items())
    rest = parts[_MOST_ARGUMENTS:]
    return [*parts[:_MOST_ARGUMENTS], *([("…", dict(rest))] if rest else [])]


def _origin(labels: Labels | None, calls: Iterable[str]) -> str:
    if not labels:
        return ""
    said = [text for source, text in _CAME_FROM.items() if source in labels.sources]
    names = ", ".join(plain(name, 80) for name in calls)
    if said and names:
        said[0] += f" ({names})"
    said += [text for kind, text in _HOLDS.items() if kind in labels.classes]
    return "; ".join(said)


def _facts(run: RunRecord, call: CallRecord, worst: Worst) -> list[tuple[str, str]]:
    intent, decision = call.intent, call.decision
    job = f"{run.job}@{run.version}" if run.version else run.job
    known = [
        ("asked by", run.user),
        ("team", run.team),
        ("environment", run.environment.value),
        ("job", job),
        ("notebook", run.notebook),
        ("run", run.run_id),
        ("agent", intent.agent),
        ("purpose", intent.purpose),
        ("effect", intent.effect.value),
        ("targets", ", ".join(decision.targets)),
        ("cost at most", _cost(call, worst)),
        ("policies", _policies(decision)),
    ]
    return [(name, str(value)) for name, value in known if value]


def _cost(call: CallRecord, worst: Worst) -> str | None:
    if call.intent.kind is not CallKind.MODEL and not worst.tokens:
        return None
    price = "unknown price" if worst.cost is None else str(worst.cost)
    return f"{price}, {worst.tokens:,} tokens"


def _policies(decision: Decision) -> str:
    digest = (decision.policy_digest or "").partition(":")[2][:12]
    return ", ".join(decision.policies) + (f" (bundle {digest})" if digest else "")
