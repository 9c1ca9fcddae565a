"""Money, names, clocks and the keys of calls."""

from __future__ import annotations

import copy
import pickle
import re
from dataclasses import FrozenInstanceError
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import UsageError
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Intent,
    JobRef,
    ManualClock,
    Money,
    Outcome,
    RunState,
    SystemClock,
    Usage,
    Verdict,
    call_key,
    changed,
    check_name,
    check_parameter_name,
    iso_utc,
    new_id,
)

NANOS = st.integers(-(10**18), 10**18)

# -- money ------------------------------------------------------------------------------------


@given(st.lists(NANOS))
def test_sums_of_money_are_exact_in_any_order(amounts):
    """No order of adding loses a nano-dollar."""
    forward = sum((Money(n) for n in amounts), Money())
    backward = sum((Money(n) for n in reversed(amounts)), Money())
    assert forward == backward == Money(sum(amounts))
    assert forward.usd == Decimal(sum(amounts)).scaleb(-9)


def test_ten_dimes_are_a_dollar():
    """What binary fractions famously get wrong."""
    assert sum([Money.of_usd("0.10")] * 10, Money()) == Money.of_usd(1)


@given(NANOS)
def test_money_reads_what_it_writes(nanos):
    """The text for people holds the whole amount."""
    text = str(Money(nanos))
    assert Money.of_usd(text.replace("$", "")) == Money(nanos)
    assert re.fullmatch(r"-?\$(0|[1-9][0-9]*)(\.[0-9]{2,9})?", text)


@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=30))
def test_dollars_are_rounded_once_half_to_even(usd):
    """The ninth decimal is right for any number of digits, whatever the decimal context."""
    exact = Fraction(usd) * 10**9
    with localcontext() as context:
        context.prec = 5
        assert Money.of_usd(usd).nanos == round(exact)


@pytest.mark.parametrize(
    ("usd", "nanos"),
    [
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("0.0000000025", 2),
        ("-0.0000000015", -2),
        ("0.00000000050000000000000000000000000000001", 1),
        ("1e-400", 0),
        ("1e-999999999", 0),
        (3, 3 * 10**9),
    ],
)
def test_halves_go_to_even(usd, nanos):
    """Halves are not always rounded up, so that many of them do not add up to a bias."""
    assert Money.of_usd(usd) == Money(nanos)


@pytest.mark.parametrize(
    "usd", ["NaN", "Infinity", "-inf", "1,5", "", "dollar", "1e30", "1e9999999"]
)
def test_what_is_no_amount_is_refused(usd):
    """Not a number, not finite, or more than 64 bits hold."""
    with pytest.raises(ValueError, match="dollars"):
        Money.of_usd(usd)


@given(NANOS, NANOS)
def test_money_compares_like_its_nanos(one, two):
    """Budgets compare exactly."""
    assert (Money(one) < Money(two)) == (one < two)
    assert (Money(one) == Money(two)) == (one == two)
    assert Money(one) - Money(two) == Money(one - two)
    assert bool(Money(one)) == (one != 0)


@pytest.mark.parametrize(
    ("nanos", "text"),
    [
        (0, "$0"),
        (13_000, "$0.000013"),
        (10**9, "$1.00"),
        (-1_500_000_000, "-$1.50"),
        (1, "$0.000000001"),
    ],
)
def test_money_for_people(nanos, text):
    """Two decimals at least, and never a rounded amount."""
    assert str(Money(nanos)) == text


def test_money_never_changes():
    """Facts are frozen."""
    with pytest.raises(FrozenInstanceError):
        Money(1).nanos = 2  # type: ignore[misc]


# -- names ------------------------------------------------------------------------------------

LOOKALIKES = [
    "ｌicence", "licence\u200b", "licence\u00ad", "ﬁle", "lіcence", "licence\n", "a/b", "a\\b", "../a", "a..b",
    ".", "..", "", "-a", "_a", ".a", "a.", "A", "a b", "a\x00b", "a" * 65, "ä", "a\u0301", "١", "con", "nul",
    "a@b", "a:b", "%2e%2e", "a\u202eb", "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", LOOKALIKES)
def test_names_that_are_unsafe_somewhere_are_refused(name):
    """Nothing that looks like another name, leaves a folder or hides characters passes."""
    with pytest.raises(UsageError, match="is not a valid name") as caught:
        check_name(name)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()


@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9._-]{1,70}"))
def test_a_name_that_passes_is_safe_in_a_path_and_a_url(name):
    """Whatever comes in: accepted names are plain ASCII that no system reads as something else."""
    try:
        passed = check_name(name)
    except UsageError:
        return
    assert passed == name
    assert re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name)
    assert ".." not in name
    assert not name.endswith(".")


@pytest.mark.parametrize(
    "name",
    [
        "class",
        "None",
        "match",
        "_hidden",
        "__import__",
        "1a",
        "a b",
        "a-b",
        "",
        "ｘ",
        "µ",
        "é",
        "a;b",
        "a=1\nimport os",
        "x\n",
    ],
)
def test_parameter_names_that_could_become_code_are_refused(name):
    """papermill writes names into source code unescaped."""
    with pytest.raises(UsageError, match="is not a valid parameter name"):
        check_parameter_name(name)


@given(st.text(max_size=30) | st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}"))
def test_an_accepted_parameter_name_is_an_assignable_ascii_name(name):
    """``NAME = 1`` with an accepted name assigns that name and does nothing else."""
    try:
        check_parameter_name(name)
    except UsageError:
        return
    space: dict = {}
    exec(f"{name} = 1", {"__builtins__": {}}, space)
    assert space == {name: 1}


@pytest.mark.parametrize(
    ("text", "name", "selector", "version"),
    [
        ("licence-review", "licence-review", None, None),
        ("licence-review@3", "licence-review", "3", 3),
        ("licence-review@production", "licence-review", "production", None),
    ],
)
def test_references_read_and_write_the_same_text(text, name, selector, version):
    """Name alone, by number, by alias."""
    ref = JobRef.parse(text)
    assert (ref.name, ref.selector, ref.version, str(ref)) == (name, selector, version, text)


@pytest.mark.parametrize(
    "text", ["", "@3", "a@", "a@b@c", "a b@1", "A@1", "a@\n1", "a@1\n", "a@ü", "a/b@1", "a..b@1"]
)
def test_other_references_are_refused(text):
    """Nothing is guessed."""
    with pytest.raises(UsageError):
        JobRef.parse(text)


def test_fresh_ids_differ_and_are_names():
    """80 bits of randomness behind a word that says what it is."""
    ids = {new_id("run") for _ in range(2000)}
    assert len(ids) == 2000
    assert all(check_name(each) == each and re.fullmatch("run-[0-9a-f]{20}", each) for each in ids)


# -- clocks -----------------------------------------------------------------------------------


def test_a_manual_clock_stands_still_until_it_is_moved():
    """Tests decide what time it is, and may jump back."""
    clock = ManualClock(us=5_000_000)
    assert [clock.now_us(), clock.now_us()] == [5_000_000] * 2
    clock.advance(seconds=1.5)
    assert (clock.now_us(), clock.monotonic_s()) == (6_500_000, 6.5)
    clock.advance(seconds=-2)
    assert clock.now_us() == 4_500_000


def test_the_system_clock_is_the_machines():
    """Microseconds since the epoch in UTC."""
    before = datetime.now(UTC).timestamp()
    now = SystemClock().now_us()
    assert before - 1 <= now / 1e6 <= datetime.now(UTC).timestamp() + 1


@given(st.integers(0, 4_102_444_800_000_000))
def test_times_are_written_to_the_microsecond(at_us):
    """Reading the text gives the same microsecond, until the year 2100."""
    text = iso_utc(at_us)
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo is not None
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() == pytest.approx(
        at_us / 1e6, abs=1e-6
    )
    assert text.endswith(f".{at_us % 1_000_000:06d}Z")


# -- calls ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "key"),
    [
        (Intent("run-1", CallKind.MODEL, "default", {"messages": [{"role": "user", "content": "hi"}]}), "89edefbd0c782079b94829d62610b9b5"),
        (Intent("run-1", CallKind.TOOL, "add", {"a": 1, "b": 2.0}, parent="ab" * 16, occurrence=3), "a01621869fcdde520aae1192f5a995f7"),
        (Intent("run-1", CallKind.RESULT, "größe", {"value": None}), "6f9a6b74c21c4eb0b8b4e9995f846a0a"),
    ],
)  # fmt: skip
def test_keys_never_change(intent, key):
    """Golden keys: journals of earlier versions answer today's kernels."""
    assert intent.key == key


def test_what_a_key_depends_on():
    """Parent, kind, name, arguments and occurrence; not run, request, cell or position."""
    base = {"run_id": "r", "kind": CallKind.TOOL, "name": "add", "arguments": {"a": 1}}
    key = Intent(**base).key
    for change in (
        {"kind": CallKind.AGENT}, {"name": "sub"}, {"arguments": {"a": 2}}, {"parent": "x"}, {"occurrence": 1},
    ):  # fmt: skip
        assert Intent(**base | change).key != key
    for same in (
        {"run_id": "s"},
        {"request_id": "x"},
        {"cell": "c"},
        {"case_id": "1"},
        {"arguments": {"a": 1.0}},
    ):
        assert Intent(**base | same).key == key


@given(st.text(), st.text(), st.text(), st.text())
def test_no_two_identities_share_a_key(parent, name, other_parent, other_name):
    """Names cannot be glued together into somebody else's key."""
    one = call_key(parent, "tool", name, "d", 0)
    two = call_key(other_parent, "tool", other_name, "d", 0)
    assert (one == two) == ((parent, name) == (other_parent, other_name))
    assert re.fullmatch("[0-9a-f]{32}", one)


def test_a_record_tells_its_state_and_latency():
    """Without an outcome a call is under way."""
    intent = Intent("run-1", CallKind.MODEL, "default", {})
    call = CallRecord(1, intent.key, 2, intent, Decision(Verdict.ALLOW), "loose:0", 1_000_000)
    assert (call.state, call.latency_s) == (CallState.STARTED, None)
    assert call.call_id == f"run-1/{intent.key}/2"
    done = CallRecord(
        1, intent.key, 2, intent, Decision(Verdict.ALLOW), "loose:0", 1_000_000,
        ended_us=1_250_000, outcome=Outcome(CallState.OK, usage=Usage(3, 4, 1)),
    )  # fmt: skip
    assert (done.state, done.latency_s) == (CallState.OK, 0.25)
    assert done.outcome is not None
    assert done.outcome.usage is not None
    assert done.outcome.usage.total_tokens == 7
    assert pickle.loads(pickle.dumps(done)) == copy.deepcopy(done) == done


def test_only_an_allowing_decision_is_true():
    """Deny and ask are both reasons not to go on."""
    assert [bool(Decision(verdict)) for verdict in (Verdict.ALLOW, Verdict.DENY, Verdict.ASK)] == [
        True,
        False,
        False,
    ]


def test_three_states_of_a_run_are_not_the_end():
    """The closed set: eleven states, eight of them terminal."""
    open_states = {state.value for state in RunState if not state.terminal}
    assert open_states == {"queued", "running", "waiting"}
    assert len(RunState) == 11


def test_a_changed_copy_is_another_value_with_the_rest_as_it_was():
    """What derives from the members that changed is made anew, and only that."""
    intent = Intent("r", CallKind.TOOL, "send", {"a": 1}, parent="p")
    digest, key = intent.arguments_digest, intent.key
    named = intent.but(agent="clerk")
    assert (named.agent, intent.agent) == ("clerk", None)
    assert (named.arguments_digest, named.key) == (digest, key)
    again = intent.but(occurrence=1)
    assert again.arguments_digest == digest
    assert again.key == Intent("r", CallKind.TOOL, "send", {"a": 1}, parent="p", occurrence=1).key
    other = intent.but(arguments={"a": 2})
    assert other.arguments_digest == Intent("r", CallKind.TOOL, "send", {"a": 2}).arguments_digest
    assert other.key != key
    assert changed(intent, agent="clerk") == named
    with pytest.raises(AttributeError):
        changed(intent, nobody=1)
