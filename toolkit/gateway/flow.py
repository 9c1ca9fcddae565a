"""Where the arguments of a call came from: labels of what was read, found again in what is sent.

Each run has a memory of texts by their labels.  A value of an outgoing call is looked for in it:

1. *User first.*  What the run's parameters, the arguments of its top-level agent calls, and the calls
   before the run had read anything from outside named, is ``user``, wherever else it occurs too.
   Then what a directory of ours lists, as a whole, is ``internal``; see :mod:`.entries`.
2. *Results.*  The whole value in an answer of a tool or a source gives that answer's labels.  So does,
   inside of a longer value: an id, an address, a number of five digits; six words in a row; a value
   or a sentence of an answer, of two words and more; and, of an answer that is ``pii`` or
   ``confidential``, a single word with a capital letter.  See :mod:`.phrases`.  What a model or an
   agent answered is asked only for values that no result holds: a value that a model repeats
   keeps the labels of where the model had it from.
3. *Unmatched* is ``user`` in a run that has read nothing from outside, and ``derived`` in any other.

Classes (``pii`` …) are kept in all three, of parts too: who named a value does not change what it
tells.

What says nothing about its origin has no labels in a run that has read from outside: booleans, null,
numbers of one or two digits that the user did not name, single characters, and common words (``asc``,
``en``, ``user`` …).  One lower-case word, as enumerations use them, takes sources from a match and no
classes.

Limits: a paraphrase, a translation, a computed number, a slice of a word, up to five words out of a
longer sentence, and one lower-case word in a text are not found again; that is what ``derived`` is for.  Data may choose *among* values that the user named without leaving a
trace.  What a tool's body in the kernel reads by other ways than calls is known when the tool ends.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from typing import Any

from toolkit.gateway.flow_state import (
    DERIVED,
    INTERNAL,
    REMEMBER_FROM,
    USER,
    FlowLimits,
    Late,
    State,
    union,
)
from toolkit.gateway.matching import Bucket, Leaf, leaves_of
from toolkit.privacy import Detector
from toolkit.values import (
    NO_LABELS,
    CallKind,
    CallRecord,
    CallState,
    DataClass,
    Intent,
    Labels,
    Outcome,
    RunRecord,
    argument_labels,
)

__all__ = ["Flow", "FlowLimits"]

_ECHOES = (CallKind.MODEL, CallKind.AGENT)


class Flow:
    """Keeps labelled results of runs, and finds them again in arguments.

    Safe to use from several threads.

    Args:
        detector: Finds personal data in answers; ``None`` looks for none.
        history: Returns the recorded calls of a run, oldest first; asked for a run that is not in
            memory (after a restart of the gateway).  Without it, a run that was dropped from
            memory counts as having read everything.
        limits: See :class:`FlowLimits`.
    """

    def __init__(
        self,
        detector: Detector | None = None,
        *,
        history: Callable[[str], Iterable[CallRecord]] | None = None,
        limits: FlowLimits | None = None,
    ) -> None:
        self._detector = detector
        self._history = history
        self._limits = limits or FlowLimits()
        self._states: OrderedDict[str, State] = OrderedDict()
        self._dropped: set[str] = set()
        self._behind: dict[str, None] = {}  # runs with answers that are not taken in yet
        self._lock = threading.RLock()

    # -- what the door asks -------------------------------------------------------------------

    def label(
        self,
        run: RunRecord,
        intent: Intent,
        *,
        pii: Collection[str] = (),
        asked: Any = None,
    ) -> dict[str, Labels]:
        """Return the labels of each argument by its name; ``""`` where arguments have no names.

        ``pii`` has the names of arguments in which personal data was found.  ``asked`` has the
        arguments before secrets were cut out: a password that the user named is the user's.
        Labels that a read of data has already are kept: its values are not among its arguments.
        """
        with self._lock:
            state = self._state(run.run_id, run)
            named = (
                intent.arguments if isinstance(intent.arguments, dict) else {"": intent.arguments}
            )
            if self._users_own(state, intent):
                state.named.append((intent, list(named.values())))
                self._behind[run.run_id] = None
                return {name: USER | _PII if name in pii else USER for name in named}
            known = intent.labels if intent.kind is CallKind.DATA else {}
            labels = {
                name: known[name] if name in known else self._label(state, intent, value)
                for name, value in named.items()
            }
            before = asked if isinstance(asked, dict) else {}
            for name, value in named.items():
                if labels[name].tainted and name in before and before[name] != value:
                    whole = self._label(state, intent, before[name])
                    if whole.sources == USER.sources:
                        labels[name] = Labels(whole.sources, labels[name].classes | whole.classes)
        for name in pii:
            if name in labels:
                labels[name] |= _PII
        return labels

    def opened(self, run: RunRecord, intent: Intent, declared: Labels) -> None:
        """Tell that a tool's body starts to run in the kernel, with the labels its answer will have.

        Calls made inside of it are treated as if the answer had been read.
        """
        with self._lock:
            self._state(run.run_id, run).open[intent.key] = (intent.parent, declared)

    def answer_labels(
        self,
        run: RunRecord,
        intent: Intent,
        outcome: Outcome,
        catalog_labels: Labels,
        *,
        pii: bool | None = None,
    ) -> Labels:
        """Return the labels of an answer.

        An answer of a tool or source whose sources are declared has these.  Everything else passes
        on what it was given: a model's answer has the labels of its messages, an agent's and an
        undeclared tool's those of its arguments and of the results that are found in the answer;
        as soon as anything came from outside, nobody knows who chose the answer: it is ``derived``.
        A person's answer is ``user``, and so is a value that the gateway made for the notebook.

        ``intent.labels`` are as :meth:`label` gave them, ``catalog_labels`` what the catalog
        declares (:data:`NO_LABELS` if nothing), and ``pii`` whether personal data was found in the
        answer (``None``: it is looked for here).
        """
        answer = outcome.answer if outcome.state is CallState.OK else outcome.error
        if intent.kind in (CallKind.HUMAN, CallKind.VALUE):
            labels = USER | catalog_labels
        elif intent.kind in (CallKind.TOOL, CallKind.DATA, CallKind.JOB) and catalog_labels.sources:
            labels = catalog_labels
        else:
            labels = self._passed_on(run, intent, answer) | catalog_labels
        if pii is None:
            pii = self._detector is not None and self._has_pii(self._detector, answer)
        return labels | _PII if pii else labels

    def remember(
        self,
        run: RunRecord,
        intent: Intent,
        answer: Any,
        labels: Labels,
        *,
        entries: Collection[str] = (),
    ) -> None:
        """Take in what a call answered before another value of the run is looked for, or in :meth:`catch_up`.

        ``answer`` is the answer, or the error as the caller will see it; ``labels`` are as
        :meth:`answer_labels` gave them; ``entries`` names members of the answer that our own
        system lists.  These are not known of calls that were read from the ledger.
        """
        with self._lock:
            state = self._states.get(run.run_id)
            if state is None or not state.with_parameters:
                state = self._state(run.run_id, run)
            state.late.append(Late(intent, answer, labels, tuple(entries)))
            self._behind[run.run_id] = None

    def catch_up(self) -> None:
        """Do what was left for later; called when an answer has been given."""
        with self._lock:
            while self._behind:
                state = self._states.get(self._behind.popitem()[0])
                if state is not None:
                    self._take_in(state)

    def session(self, run_id: str) -> Labels:
        """Return the labels of everything that a run has read."""
        with self._lock:
            state = self._states.get(run_id)
            if state is None or state.late:  # what the user named changes nothing about it
                state = self._state(run_id, None)
            return state.session | DERIVED if state.saturated else state.session

    def load(self, run_id: str, calls: Iterable[CallRecord]) -> None:
        """Build a run's memory from its recorded calls, oldest first, in place of what is known."""
        with self._lock:
            state = self._states[run_id] = State()
            for call in calls:
                self._replay(state, call)
            self._keep(run_id)

    def known(self, run_id: str) -> bool:
        """Whether a run is in memory; another one is read from its history when it calls."""
        with self._lock:
            return run_id in self._states

    def forget(self, run_id: str) -> None:
        """Drop a run that has ended."""
        with self._lock:
            self._states.pop(run_id, None)
            self._dropped.discard(run_id)

    # -- memory -------------------------------------------------------------------------------

    def _state(self, run_id: str, run: RunRecord | None) -> State:
        state = self._states.get(run_id)
        if state is None:
            if self._history is not None:
                self.load(run_id, self._history(run_id))
                state = self._states[run_id]
            else:
                state = State(saturated=run_id in self._dropped)
                self._states[run_id] = state
                self._keep(run_id)
        else:
            self._states.move_to_end(run_id)
            self._take_in(state)
        if run is not None and not state.with_parameters:
            state.with_parameters = True
            self._given(state, run)
        return state

    def _take_in(self, state: State) -> None:
        """Take in what was left for later: first what the user named, then answers in their order."""
        texts, state.named = state.named, []
        for intent, values in texts:
            for value in values:
                self._label(state, intent, value)
        late, state.late = state.late, []
        for intent, answer, labels, entries in late:
            state.open.pop(intent.key, None)
            if entries:
                state.entries.add(answer, entries, self._limits.leaves)
            self._remember(state, intent.kind, answer, labels)

    def _given(self, state: State, run: RunRecord) -> None:
        """Take in a run's parameters: a person's, or what the run that started it knew of them."""
        labels = argument_labels(run)
        mine = {name: v for name, v in run.parameters.items() if labels.get(name, USER) == USER}
        state.add(state.user, self._limits, mine)
        for name, value in run.parameters.items():
            if name not in mine:
                self._remember(state, CallKind.JOB, value, labels[name])

    def _keep(self, run_id: str) -> None:
        self._states.move_to_end(run_id)
        while len(self._states) > self._limits.runs:
            dropped, _ = self._states.popitem(last=False)
            if self._history is None:
                self._dropped.add(dropped)

    def _replay(self, state: State, call: CallRecord) -> None:
        intent = call.intent
        if isinstance(intent.arguments, dict):
            for name, value in intent.arguments.items():
                if intent.labels.get(name, NO_LABELS).sources == USER.sources:
                    state.add(state.user, self._limits, value)
        if call.outcome is None:
            return
        answer = call.outcome.answer if call.state is CallState.OK else call.outcome.error
        labels = call.outcome.labels
        if labels is None and intent.kind is not CallKind.RESULT and answer is not None:
            # Recorded before there were labels: nobody knows where it came from.
            labels = DERIVED if call.state is CallState.OK else NO_LABELS
        self._remember(state, intent.kind, answer, labels or NO_LABELS)

    def _remember(self, state: State, kind: CallKind, answer: Any, labels: Labels) -> None:
        state.session |= labels
        if kind is CallKind.RESULT or not labels:
            return
        if kind is CallKind.DATA and isinstance(answer, dict):
            return  # names and numbers; the values of its columns come by themselves
        if labels == USER:
            state.add(state.user, self._limits, answer)
            return
        which = (labels, kind in _ECHOES)
        if which not in state.buckets:
            state.buckets[which] = Bucket(labels, echo=which[1])
        state.add(state.buckets[which], self._limits, answer)

    # -- matching -----------------------------------------------------------------------------

    def _users_own(self, state: State, intent: Intent) -> bool:
        """Whether whatever a call's arguments hold is the user's, so that it may be taken in later."""
        return intent.kind is not CallKind.DATA and state.has_read_nothing(intent.parent)

    def _label(self, state: State, intent: Intent, value: Any) -> Labels:
        outside = state.reads_outside(intent.parent)
        # Who starts an agent names its task, whatever the run has read before.
        top = intent.kind is CallKind.AGENT and intent.parent is None
        leaves, complete = leaves_of(value, self._limits.leaves)
        labels = NO_LABELS if complete or not outside else DERIVED
        for leaf in leaves:
            labels |= self._leaf(state, leaf, outside=outside, named=top or not outside)
        return labels or (NO_LABELS if outside else USER)

    def _leaf(self, state: State, value: str | float, *, outside: bool, named: bool) -> Labels:
        if isinstance(value, str) and len(value) >= REMEMBER_FROM:
            text = hash(value)
            if (before := state.seen.get(text)) is not None:
                return before
            labels = self._found(state, Leaf(value), value, outside=outside, named=named)
            state.note(text, labels, self._limits)
            return labels
        return self._found(state, Leaf(value), value, outside=outside, named=named)

    def _found(
        self, state: State, leaf: Leaf, value: str | float, *, outside: bool, named: bool
    ) -> Labels:
        if leaf.trivial:
            # A short number is a fit id all the same: whether the user named it can be told.
            short = leaf.compact.isdigit() and state.user.holds(leaf)
            return USER if short else NO_LABELS
        by_user = state.user.holds(leaf)
        if leaf.plain and (by_user or not outside):
            return USER
        whole = state.whole(leaf)
        if leaf.plain:
            entry = INTERNAL if state.entries.hold(value) else NO_LABELS
            known = entry or Labels((whole or state.whole(leaf, echo=True)).sources)
            return known or self._partly(state, leaf, value, named=named)
        if by_user or state.entries.hold(value):
            classes = whole.classes | state.inside(leaf, echoes=False).classes
            return Labels((USER if by_user else INTERNAL).sources, classes)
        if whole:
            inside = state.inside(leaf, echoes=False)
            return Labels(whole.sources, whole.classes | inside.classes)
        return state.whole(leaf, echo=True) or self._partly(state, leaf, value, named=named)

    def _partly(self, state: State, leaf: Leaf, value: str | float, *, named: bool) -> Labels:
        """Label a value that is nowhere as a whole: by its parts, and by what is left of it."""
        inside = state.inside(leaf)
        if inside.sources:
            return inside | (USER if named else DERIVED)
        if named:
            state.add(state.user, self._limits, value)
            return USER | inside
        if leaf.prose and state.user.covers(leaf.significant) and state.user.names(leaf):
            return USER | inside  # every word that matters is the user's own
        return DERIVED | inside

    def _passed_on(self, run: RunRecord, intent: Intent, answer: Any) -> Labels:
        given = union((intent.labels or self.label(run, intent)).values())
        if intent.kind is not CallKind.MODEL and intent.kind is not CallKind.RESULT:
            with self._lock:
                given |= self._read_inside(self._state(run.run_id, run), answer)
        return Labels(DERIVED.sources, given.classes) if given.tainted else given or USER

    def _read_inside(self, state: State, answer: Any) -> Labels:
        """Labels of the results that are found in an answer; nothing is remembered by it."""
        leaves, complete = leaves_of(answer, self._limits.leaves)
        labels = NO_LABELS if complete else DERIVED
        outside = state.reads_outside(None)
        for value in leaves:
            leaf = Leaf(value)
            if leaf.trivial:
                continue
            held = state.whole(leaf) | state.whole(leaf, echo=True) | state.inside(leaf)
            if state.user.holds(leaf):
                labels |= Labels(classes=frozenset() if leaf.plain else held.classes)
                continue
            if held or outside:
                labels |= held or DERIVED
        return labels

    def _has_pii(self, detector: Detector, answer: Any) -> bool:
        texts = [str(leaf) for leaf in leaves_of(answer, self._limits.leaves)[0]]
        return detector.personal("\x00".join(texts))


_PII = Labels(frozenset(), frozenset({DataClass.PII}))
