"""Secrets are cut out of every call on its way in, and of every answer before it is written."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.errors import InvalidAnswer, ToolkitError
from toolkit.policy import PrivacyPolicy
from toolkit.privacy import Category, Detector, KnownSecrets, PiiMode, Redacted, Redactor
from toolkit.values import CallState, Intent, Outcome, RunRecord

__all__ = ["Screen"]

_MOST_RUNS = 1_000
# A millisecond of ordinary text, and 0.2 s of text that is made to be hard: from here on, a thread.
_LARGE = 32_000


@dataclass
class Screen:
    """Redactors of the runs that call.

    Attributes:
        detector: Finds by form.
        known: Returns the secrets that this process itself holds, now.
    """

    detector: Detector = field(default_factory=Detector)
    known: Callable[[], KnownSecrets] = KnownSecrets
    _redactors: OrderedDict[tuple[str, str, int], Redactor] = field(default_factory=OrderedDict)
    # One thread: large values wait for one another, and nobody else waits for them.
    _aside: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "screen"))

    async def incoming(
        self, run: RunRecord, intent: Intent, privacy: PrivacyPolicy
    ) -> tuple[Intent, frozenset[str]]:
        """Return what :meth:`arguments` does; the event loop goes on while it searches much."""
        if not _large(intent.arguments):
            return self.arguments(run, intent, privacy)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, self.arguments, run, intent, privacy)

    async def outgoing(
        self, run: RunRecord, outcome: Outcome, privacy: PrivacyPolicy
    ) -> tuple[Outcome, bool]:
        """Return what :meth:`outcome` does; the event loop goes on while it searches much."""
        if not (_large(outcome.answer) or _large(outcome.error)):
            return self.outcome(run, outcome, privacy)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._aside, self.outcome, run, outcome, privacy)

    def arguments(
        self, run: RunRecord, intent: Intent, privacy: PrivacyPolicy
    ) -> tuple[Intent, frozenset[str]]:
        """Return the call without secrets, and the names of arguments with personal data.

        Raises:
            UsageError: The arguments are nested deeper than 64 levels.
        """
        redacted = self._redactor(run, privacy).redact(intent.arguments)
        personal = frozenset(
            found.top for found in redacted.findings if found.category is Category.PII
        )
        if intent.purpose is not None:
            intent = intent.but(purpose=self.text(run, intent.purpose))
        if redacted.value is intent.arguments:
            return intent, personal
        return replace(intent, arguments=redacted.value), personal

    def outcome(
        self, run: RunRecord, outcome: Outcome, privacy: PrivacyPolicy
    ) -> tuple[Outcome, bool]:
        """Return the outcome without secrets, and whether personal data is in it."""
        redactor = self._redactor(run, privacy)
        try:
            answer, error = _redact(redactor, outcome.answer), _redact(redactor, outcome.error)
        except Exception as fault:  # noqa: BLE001 - what cannot be searched is not written
            return _unsearchable(outcome, fault), True
        personal = _personal(answer) or _personal(error)
        failed = any(attempt.error is not None for attempt in outcome.attempts)
        if answer.value is outcome.answer and error.value is outcome.error and not failed:
            return outcome, personal
        attempts = tuple(
            attempt
            if attempt.error is None
            else replace(attempt, error=redactor.text(attempt.error))
            for attempt in outcome.attempts
        )
        searched = replace(outcome, answer=answer.value, error=error.value, attempts=attempts)
        return searched, personal

    def value(self, salt: str, value: Any) -> Any:
        """Return a value without secrets, for a run that is known by its id only."""
        return Redactor(self.detector, self.known(), salt=salt).redact(value).value

    def text(self, run: RunRecord, text: str) -> str:
        """Return a text without secrets."""
        return self._redactor(run, PrivacyPolicy()).text(text)

    def _redactor(self, run: RunRecord, privacy: PrivacyPolicy) -> Redactor:
        known = self.known()
        # A run that answers from another one's journal has to find the same keys there.
        salt = run.source_run_id or run.run_id
        which = (salt, privacy.pii, id(known))
        if (found := self._redactors.get(which)) is None:
            pii = PiiMode(privacy.pii)
            found = Redactor(self.detector, known, salt=salt, pii=pii)
            while len(self._redactors) >= _MOST_RUNS:
                self._redactors.popitem(last=False)
            self._redactors[which] = found
        return found


def _unsearchable(outcome: Outcome, fault: Exception) -> Outcome:
    """Return that a call was made, without what it answered."""
    why, step = type(fault).__name__, None
    if isinstance(fault, ToolkitError):
        why, step = fault.message, fault.next_step
    told = InvalidAnswer(
        f"the call was made, and its answer cannot be recorded: {why}",
        next_step=step or "answer with plainer JSON values",
    )
    return replace(outcome, state=CallState.ERROR, answer=None, error=told.to_json(), attempts=())


def _large(value: Any) -> bool:
    """Whether a value has much text, or many parts; looks no further than it has to."""
    left, stack = _LARGE, [value]
    while stack and left > 0:
        node = stack.pop()
        left -= 8
        if isinstance(node, str):
            left -= len(node)
        elif isinstance(node, dict):
            left -= 8 * len(node)
            if left > 0:
                stack.extend(node)
                stack.extend(node.values())
        elif isinstance(node, list | tuple):
            left -= 8 * len(node)
            if left > 0:
                stack.extend(node)
    return left <= 0


def _redact(redactor: Redactor, value: Any) -> Redacted:
    return Redacted(None, ()) if value is None else redactor.redact(value)


def _personal(redacted: Redacted) -> bool:
    return any(found.category is Category.PII for found in redacted.findings)
