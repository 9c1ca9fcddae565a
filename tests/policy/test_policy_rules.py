"""Budgets, rates, concurrency, privacy, approvals; people and their roles."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import InvalidFile
from toolkit.ledger.reservations import MOST_RATE_CALLS
from toolkit.policy import (
    ApprovalPolicy,
    BudgetRule,
    ConcurrencyRule,
    People,
    Per,
    Period,
    PolicyBundle,
    PrivacyPolicy,
    RateRule,
    Scope,
    Webhook,
)
from toolkit.policy.limits import parse_duration, parse_limits
from toolkit.values import Money

RULES = """\
budgets:
  - {scope: call, usd: "0.10", seconds: 30}
  - {scope: user, period: day, usd: 5, calls: 100}
  - {scope: team, name: legal, period: month, tokens: 1000000}
  - {scope: environment, period: total, usd: "1000"}
rates:
  - {scope: agent, calls: 10, per: minute}
concurrency:
  - {scope: run, calls: 4}
retries_per_run: 20
privacy: {secrets: redact, pii: redact}
approvals:
  expires: 2h
  escalate_to: boss
  on_expiry: escalate
  webhook: {url: "https://hooks.example/x", secret_env: HOOK_KEY}
"""


def test_every_rule_is_a_typed_value(write_bundle, limits_text):
    """What policy.yaml says is what the gateway reads."""
    bundle = PolicyBundle.load(write_bundle(limits=limits_text + RULES))
    assert bundle.budgets == (
        BudgetRule(Scope.CALL, usd=Money.of_usd("0.10"), seconds=30.0),
        BudgetRule(Scope.USER, period=Period.DAY, usd=Money.of_usd(5), calls=100),
        BudgetRule(Scope.TEAM, "legal", Period.MONTH, tokens=1_000_000),
        BudgetRule(Scope.ENVIRONMENT, usd=Money.of_usd(1000)),
    )
    assert bundle.rates == (RateRule(Scope.AGENT, 10, Per.MINUTE),)
    assert bundle.concurrency == (ConcurrencyRule(Scope.RUN, 4),)
    assert bundle.retries_per_run == 20
    assert bundle.privacy == PrivacyPolicy(pii="redact")
    hook = Webhook("https://hooks.example/x", "HOOK_KEY")
    assert bundle.approvals == ApprovalPolicy(7200.0, "boss", "escalate", hook)
    assert bundle.budget.calls == 10


def test_a_bundle_without_rules_is_as_before(write_bundle):
    """Every new member is optional."""
    bundle = PolicyBundle.load(write_bundle())
    assert (bundle.budgets, bundle.rates, bundle.concurrency) == ((), (), ())
    assert bundle.privacy == PrivacyPolicy("redact", "label")
    assert bundle.approvals == ApprovalPolicy(86_400.0, None, "deny", None)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("budgets: [{scope: user, usd: 1}]", "says no period"),
        ("budgets: [{scope: user, period: day}]", "limits nothing"),
        ("budgets: [{scope: run, period: day, usd: 1}]", "a run has no period"),
        ("budgets: [{scope: run, name: x, usd: 1}]", "names one run"),
        ("budgets: [{scope: call, calls: 1}]", "the calls of one call"),
        ("budgets: [{scope: planet, usd: 1}]", "scope"),
        ('budgets: [{scope: run, usd: "1,5"}]', "is not an amount of dollars"),
        ("budgets: [{scope: run, usd: -1}]", "is not an amount of dollars"),
        ("budgets: [{scope: run, usd: 1}, {scope: run, usd: 2}]", "two rules for run"),
        ("rates: [{scope: call, calls: 1, per: second}]", "the rate of one call"),
        (
            f"rates: [{{scope: user, calls: {MOST_RATE_CALLS + 1}, per: minute}}]",
            f"less than or equal to {MOST_RATE_CALLS}",
        ),
        ("rates: [{scope: run, calls: 0, per: second}]", "greater than or equal to 1"),
        ("rates: [{scope: run, calls: 1, per: fortnight}]", "per"),
        ("concurrency: [{scope: call, calls: 1}]", "how many one call is"),
        ("privacy: {secrets: keep}", "secrets"),
        ("approvals: {expires: 24}", "is not a time like"),
        ("approvals: {on_expiry: allow}", "on_expiry"),
        ("approvals: {on_expiry: escalate}", "without escalate_to"),
        ("approvals: {webhook: {url: 'http://evil.example/', secret_env: K}}", "not https://"),
        ("approvals: {webhook: {url: 'https://a:b@c/', secret_env: K}}", "without a login"),
        (
            "approvals: {webhook: {url: 'https://c/', secret_env: 's3cret!'}}",
            "environment variable",
        ),
    ],
)
def test_wrong_rules_are_faults_that_never_repeat_a_secret(limits_text, rules, message):
    """A limit that could not hold is refused when the file is read."""
    limits, found = parse_limits(f"{limits_text}{rules}\n".encode(), "policy.yaml")
    assert limits is None
    assert message in found[0].message or message in found[0].where
    assert "s3cret" not in str(found)


@pytest.mark.parametrize(
    ("period", "label"),
    [
        (Period.HOUR, "hour:2026-01-01T23"),
        (Period.DAY, "day:2026-01-01"),
        (Period.WEEK, "week:2026-W01"),
        (Period.MONTH, "month:2026-01"),
        (Period.TOTAL, "total"),
    ],
)
def test_a_period_has_one_name_in_utc(period, label):
    """1 January 2026, 23:59:59.999999 UTC; the next microsecond is another hour and day."""
    at_us = 1_767_311_999_999_999
    assert period.label(at_us) == label
    changes = period.label(at_us + 1) != label
    assert changes == (period in (Period.HOUR, Period.DAY))


@given(st.sampled_from(list(Period)), st.integers(0, 4 * 10**15), st.integers(0, 10**12))
def test_periods_never_run_backwards(period, at_us, later_us):
    """Labels sort like time."""
    assert period.label(at_us) <= period.label(at_us + later_us)


@given(st.integers(1, 999_999), st.sampled_from("smhd"))
def test_times_are_read_exactly_or_refused(number, unit):
    """Seconds, minutes, hours and days, up to a year."""
    seconds = number * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[unit]
    if seconds <= 365 * 86_400:
        assert parse_duration(f"{number}{unit}") == seconds
    else:
        with pytest.raises(ValueError, match="is not a time"):
            parse_duration(f"{number}{unit}")


def test_a_rule_covers_its_name_or_everyone():
    """Without a name each value of the scope has a budget of its own."""
    assert RateRule(Scope.TEAM, 1, Per.SECOND).covers("legal")
    assert RateRule(Scope.TEAM, 1, Per.SECOND, "legal").covers("legal")
    assert not BudgetRule(Scope.TEAM, "legal", calls=1).covers("sales")
    assert not ConcurrencyRule(Scope.JOB, 1).covers(None)


# -- people ---------------------------------------------------------------------------------------


def test_people_have_teams_and_roles(tmp_path):
    """Whoever is not listed has neither; without a file nobody has."""
    path = tmp_path / "people.yaml"
    assert People.load(path).roles("anna") == ()
    path.write_text("people:\n  anna: {team: legal, roles: [approver, analyst]}\n  ben: {}\n")
    people = People.load(path)
    assert (people.roles("anna"), people.team("anna")) == (("approver", "analyst"), "legal")
    assert (people.roles("ben"), people.team("eve"), people.roles("eve")) == ((), None, ())
    assert people.with_role("approver") == ("anna",)
    assert people.digest != People({}).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("people: {a: {roles: [x, x]}}", "names a role twice"),
        ("people: {a: {roles: ['x y']}}", "cannot name a role"),
        ("people: {a: {team: ''}}", "cannot name a team"),
        ("people: {a: {rolls: []}}", "is not a known key"),
        ("people: {'': {}}", "people"),
        ("{}", "is missing"),
    ],
)
def test_wrong_people_are_faults(tmp_path, text, message):
    """A misspelt member never takes somebody's role away in silence."""
    path = tmp_path / "people.yaml"
    path.write_text(text)
    with pytest.raises(InvalidFile) as caught:
        People.load(path)
    assert message in str(caught.value)
