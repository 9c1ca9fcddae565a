"""What counts as the same content, and which earlier measurements are believed."""

from __future__ import annotations

import sqlite3

import pytest
from cli_world import notebook_text
from shelf_world import Shelf
from workspace_world import PRODUCTION

from toolkit.promotion.recall import DAYS
from toolkit.registry import Registry
from toolkit.values import RunState


def test_the_basis_is_all_that_an_answer_depends_on(shelf: Shelf) -> None:
    """Code, person, models, what they answer from, rules and limits; not what judges."""
    registry = shelf.workspace.registry
    policy = registry / "policies" / "production" / "policy.yaml"
    seen = {shelf.memory().basis}
    assert shelf.memory().basis in seen
    policy.write_text(
        PRODUCTION.lstrip().replace("gates: {}", "gates: {s: [{scorer: c, minimum: 1}]}")
    )
    assert shelf.memory().basis in seen, "a gate judges; it changes no answer"
    for path, old, new in (
        (policy, "calls: 200", "calls: 199"),
        (policy.with_name("rules.cedar"), "closed", "shut"),
        (registry / "models.yaml", "max_tokens: 64", "max_tokens: 65"),
        (registry / "answers.yaml", "an answer", "another"),
        (registry / "tools.yaml", "Adds", "Sums"),
    ):
        path.write_text(path.read_text().replace(old, new))
        basis = shelf.memory().basis
        assert basis not in seen, path.name
        seen.add(basis)
    assert shelf.memory(user="ben").basis not in seen
    assert shelf.memory(text=notebook_text("print(2)")).basis not in seen


def test_an_earlier_measurement_is_found_and_says_where_it_is_from(shelf: Shelf) -> None:
    """By content, from the ledger; an error is an answer, other inputs are another question."""
    run_id = shelf.measure()
    memory = shelf.memory()
    wanted = [("a", {"n": 1}), ("b", {"n": 3}), ("c", {"n": 1})]
    found = memory.answers(memory.key("evaluate"), wanted)
    assert {case: answer.output for case, (answer, _) in found.items()} == {"a": "one"}
    (source,) = memory.find(memory.key("evaluate"))
    assert source.to_json() == {"run_id": run_id, "record": source.record, "version": None}
    assert f"record {source.record} of the audit log" in source.sentence
    failed = memory.answers(memory.key("evaluate"), [("b", {"n": 2})])["b"][0]
    assert failed.error == {"code": "x", "message": "no"}


def test_what_cannot_be_believed_is_measured_again(shelf: Shelf) -> None:
    """Too old, not to its end, of another job, another content, or not wanted."""
    run_id = shelf.measure()
    shelf.measure(RunState.FAILED)
    shelf.measure(job="other")
    assert shelf.found() == [run_id]
    assert shelf.found(days=DAYS - 0.1) == [run_id]
    assert shelf.found(days=DAYS + 0.1) == []
    assert shelf.found(user="ben") == []
    memory = shelf.memory()
    memory.used = False
    assert memory.find(memory.key("evaluate")) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET body = replace(body, 'one', 'two')",
        "UPDATE runs SET job = 'other'",
        "DELETE FROM entries WHERE n > 3",
        "DELETE FROM runs",
    ],
)
def test_a_run_that_was_changed_is_not_believed(shelf: Shelf, change: str) -> None:
    """The audit log keeps the head of its chain."""
    shelf.measure()
    assert shelf.found()
    with sqlite3.connect(shelf.workspace.database_url.removeprefix("sqlite:///")) as connection:
        connection.execute(change)
    assert shelf.found() == []


def test_a_record_that_is_not_one_of_ours_is_passed_over(shelf: Shelf) -> None:
    """Members that are missing or of another kind are no measurement."""
    memory = shelf.memory()
    key = memory.key("evaluate")
    odd = [{"key": key}, {"key": key, "run_id": "run-none", "n": 1, "hash": "x"}, {"key": key, "run_id": 5, "n": "?"}]  # fmt: skip
    Registry(shelf.workspace.registry).record(
        "promotion.refused", {"job": "steady", "measurements": odd}, by="ana"
    )
    assert shelf.found() == []
