"""Any interleaving of what may happen to calls keeps every scope within its limits."""

from __future__ import annotations

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_world import ALLOW, DENY, a_run, begin

from toolkit.errors import BudgetExceeded, Conflict
from toolkit.ledger import Limit, Reservation
from toolkit.values import CallState, Money, Outcome, RunState, Usage

UNITS = ("nanos", "tokens", "calls", "us")
_numbers = itertools.count()
_amount = st.integers(0, 60)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("begin"), _amount, _amount),
        st.tuples(st.just("finish"), st.integers(0, 9), st.integers(0, 100)),
        st.tuples(st.just("fail"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("deny"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("refuse"), _amount, st.just(0)),
        st.tuples(st.just("restart"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("again"), st.integers(0, 9), st.just(0)),
        st.tuples(st.just("end"), st.integers(0, 1), st.just(0)),
    ),
    max_size=30,
)


class _Model:
    """What two runs and a team should hold and have spent, by unit."""

    def __init__(self, runs: list[str], team: str) -> None:
        self.team = team
        self.limits = {f"run:{run}": {"nanos": 100, "us": 90_000_000} for run in runs}
        self.limits[team] = {"tokens": 130, "calls": 12, "concurrent": 4}
        self.held = {scope: dict.fromkeys(UNITS, 0) for scope in self.limits}
        self.spent = {scope: dict.fromkeys(UNITS, 0) for scope in self.limits}

    def scopes(self, run: str) -> tuple[str, str]:
        return f"run:{run}", self.team

    def fits(self, run: str, wanted: dict[str, int]) -> bool:
        for scope in self.scopes(run):
            limit, held, spent = self.limits[scope], self.held[scope], self.spent[scope]
            if any(u in limit and held[u] + spent[u] + wanted[u] > limit[u] for u in UNITS):
                return False
            if held["calls"] + 1 > limit.get("concurrent", 99):
                return False
        return True

    def add(self, run: str, held: dict[str, int], sign: int, charged: dict[str, int]) -> None:
        for scope in self.scopes(run):
            for unit in UNITS:
                self.held[scope][unit] += sign * held[unit]
                self.spent[scope][unit] += charged[unit]

    def reservation(self, run: str, wanted: dict[str, int]) -> Reservation:
        limits = (
            Limit(f"run:{run}", usd=Money(100), seconds=90.0),
            Limit(self.team, tokens=130, calls=12, concurrent=4),
        )
        return Reservation(
            limits, Money(wanted["nanos"]), wanted["tokens"], seconds=wanted["us"] / 1e6
        )


NOTHING = dict.fromkeys(UNITS, 0)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_any_interleaving_keeps_every_scope_within_its_limits(ledger, steps):
    """Begin, finish, fail, deny, refuse, restart, resend and the end of a run, in any order.

    After every step the ledger says what a model says, to the last unit; at the end it verifies.
    """
    number = next(_numbers)
    runs = [f"run-{number}-{which}" for which in "ab"]
    for run in runs:
        a_run(ledger, run)
    model, opened, ended = _Model(runs, f"team:{number}"), [], set()
    for position, (what, first, second) in enumerate(steps):
        if what in {"begin", "refuse"}:
            run = runs[(first + second + position) % 2]
            wanted = {"nanos": first, "tokens": second, "calls": 1, "us": first * 1_000_000}
            decision = ALLOW if what == "begin" else DENY
            if run in ended:
                continue
            try:
                reserve = model.reservation(run, wanted)
                given_ = {"run_id": run, "reserve": reserve, "decision": decision}
                call = begin(ledger, {"p": position}, **given_).call
            except BudgetExceeded:
                assert not model.fits(run, wanted)
                continue
            if what == "begin":
                assert model.fits(run, wanted)
                model.add(run, wanted, 1, NOTHING)
                opened.append((call, run, wanted))
        elif what == "end":
            run = runs[first]
            ledger.update_run(run, state=RunState.KILLED)
            for _, _, wanted in [each for each in opened if each[1] == run]:
                if run not in ended:
                    model.add(run, wanted, -1, wanted)
            ended.add(run)
        elif opened:
            call, run, wanted = opened[first % len(opened)]
            if what == "restart":
                try:
                    ledger.restart(call)
                    assert run not in ended
                except Conflict:
                    assert run in ended
            elif what == "again":
                reserve = model.reservation(run, wanted)
                assert not ledger.begin(call.intent, ALLOW, reserve=reserve).fresh
            else:
                opened.remove((call, run, wanted))
                outcome, charged = _outcome(what, wanted, second)
                ledger.finish(call, outcome)
                if run in ended:
                    worst = {unit: charged[unit] - wanted[unit] for unit in UNITS}
                    model.add(run, NOTHING, 0, worst)
                else:
                    model.add(run, wanted, -1, charged)
        _agree(ledger, model)
    assert [ledger.verify(run) for run in runs] == [[], []]


def _outcome(what: str, wanted: dict[str, int], percent: int) -> tuple[Outcome, dict[str, int]]:
    if what == "deny":
        return Outcome(CallState.DENIED), NOTHING
    if what == "fail":  # nobody knows what it has cost
        return Outcome(CallState.ERROR, seconds=wanted["us"] / 1e6), wanted
    paid = {unit: wanted[unit] * percent // 100 for unit in UNITS} | {"calls": 1}
    usage = Usage(paid["tokens"], 0)
    outcome = Outcome(
        CallState.OK, cost=Money(paid["nanos"]), usage=usage, seconds=paid["us"] / 1e6
    )
    return outcome, paid


def _agree(ledger, model: _Model) -> None:
    for scope, limit in model.limits.items():
        found = ledger.budget(scope)
        held, spent = model.held[scope], model.spent[scope]
        if found is None:
            assert not any(held.values())
            assert not any(spent.values())
            continue
        assert held == {
            "nanos": found.reserved.nanos,
            "tokens": found.reserved_tokens,
            "calls": found.reserved_calls,
            "us": round(found.reserved_seconds * 1e6),
        }
        assert spent == {
            "nanos": found.spent.nanos,
            "tokens": found.spent_tokens,
            "calls": found.spent_calls,
            "us": round(found.spent_seconds * 1e6),
        }
        assert all(held[u] + spent[u] <= limit[u] for u in UNITS if u in limit)
