"""What is remarkable about a call, in words: for `toolkit show` and for notebooks.

A note is a pair of a short subject and one line of plain text.  A call that was simply allowed and
answered has none.  Texts come from the record and may quote what came from outside: who shows them
escapes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from toolkit.tracing.attempts import worth_showing
from toolkit.values import (
    Attempt,
    CallRecord,
    CallState,
    DataClass,
    Labels,
    Source,
    Verdict,
)

__all__ = ["Note", "call_notes"]

_LONGEST = 400
_MOST_LINES = 8

_CAME_FROM: Final = {
    Source.UNTRUSTED: "from outside",
    Source.DERIVED: "perhaps from outside",
}
_HOLDS: Final = {
    DataClass.PII: "personal data",
    DataClass.CONFIDENTIAL: "confidential",
}


class Note(NamedTuple):
    """One remark.

    Attributes:
        subject: ``purpose``, ``attempt``, ``data``, ``answer``, ``policy``, ``production``,
            ``approval``, ``shadow`` or ``error``.
        text: One line.
    """

    subject: str
    text: str


def call_notes(call: CallRecord) -> list[Note]:
    """Return what is remarkable about a call, in the order in which it happened."""
    return [
        Note(subject, _line(text))
        for part in (_asked(call), _data(call), _decided(call), _made(call))
        for subject, text in part
    ]


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _asked(call: CallRecord) -> Iterator[tuple[str, str]]:
    if call.intent.purpose:
        yield "purpose", call.intent.purpose


def _data(call: CallRecord) -> Iterator[tuple[str, str]]:
    """Yield where arguments and answer came from, as far as somebody has to be careful with it."""
    for name, labels in sorted(call.intent.labels.items())[:_MOST_LINES]:
        if said := _careful(labels):
            yield "data", f"{name or 'the arguments'}: {said}"
    answer = call.outcome.labels if call.outcome else None
    if answer and (said := _careful(answer)):
        yield "answer", said


def _careful(labels: Labels) -> str:
    said = [text for source, text in _CAME_FROM.items() if source in labels.sources]
    said += [text for kind, text in _HOLDS.items() if kind in labels.classes]
    return ", ".join(said)


def _decided(call: CallRecord) -> Iterator[tuple[str, str]]:
    decision = call.decision
    reasons = list(decision.reasons[:_MOST_LINES])
    approved = decision.approver is not None and decision.verdict is Verdict.ALLOW
    # What the person said stands last.
    word = reasons.pop() if approved and reasons else None
    by = f" [{', '.join(decision.policies)}]" if decision.policies else ""
    for place, reason in enumerate(reasons):
        yield "policy", reason if place else f"{reason}{by}"
    if decision.approver is not None:
        yield "approval", word or _approval(call, decision.approver)
    would = decision.production_verdict
    if would is not None and would is not decision.verdict:
        verb = "would ask a person" if would is Verdict.ASK else f"would {would.value}"
        why = f": {'; '.join(decision.production_reasons)}" if decision.production_reasons else ""
        yield "production", f"{verb}{why}"
    for sentence in decision.shadow[:_MOST_LINES]:
        yield "shadow", sentence


def _approval(call: CallRecord, role: str) -> str:
    if call.outcome is None and call.decision.verdict is Verdict.ASK:
        return f"waits for the role {role}"
    return f"the role {role} was asked"


def _made(call: CallRecord) -> Iterator[tuple[str, str]]:
    outcome = call.outcome
    if outcome is None:
        return
    attempts = outcome.attempts
    if worth_showing(attempts):
        shown = list(enumerate(attempts, 1))
        if len(shown) > _MOST_LINES:
            shown = [*shown[: _MOST_LINES - 1], shown[-1]]
        for number, attempt in shown:
            yield "attempt", _attempt(number, len(attempts), attempt)
    if outcome.state is CallState.ERROR or _refused_otherwise(call):
        error = outcome.error or {}
        yield "error", str(error.get("message") or error.get("code") or outcome.state.value)


def _attempt(number: int, of: int, attempt: Attempt) -> str:
    took = max(0, attempt.ended_us - attempt.started_us) / 1e6
    because = f" ({attempt.reason})" if attempt.reason else ""
    ended = f"failed after {took:.2f} s: {attempt.error}"
    if attempt.error is None:
        ended = f"answered in {took:.2f} s"
    elif took < 0.0005:  # a target that was passed over
        ended = attempt.error
    return f"{number}/{of} {attempt.target}{because} {ended}"


def _refused_otherwise(call: CallRecord) -> bool:
    """Whether a call was denied for another reason than its recorded decision."""
    if call.state is not CallState.DENIED or call.outcome is None:
        return False
    message = str((call.outcome.error or {}).get("message") or "")
    return not any(reason in message for reason in call.decision.reasons)
