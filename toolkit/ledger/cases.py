"""Cases of an evaluation: inputs go out once, answers come in once; labels are never here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import bindparam, select, update

from toolkit.errors import Conflict, NotFound
from toolkit.ledger.chain import EntryType
from toolkit.ledger.codec import check_payload, check_plain, json_text
from toolkit.ledger.schema import CASE_WAITS, cases, entries
from toolkit.ledger.transaction import Transaction
from toolkit.values import digest_json

__all__ = ["answer_case", "next_case", "put_cases", "reset_cases", "withdraw_cases"]

_WAITS, _HANDED, _WITHDRAWN = 0, 1, 2

_KNOWN = select(cases.c.case_id, cases.c.inputs).where(cases.c.run_id == bindparam("run"))
_INSERT = cases.insert()
_NEXT = (
    select(cases.c.case_id, cases.c.inputs)
    # In the words of the index, or the database does not see that it may use it.
    .where(cases.c.run_id == bindparam("run"), CASE_WAITS)
    .order_by(cases.c.position)
    .limit(1)
)
_ONE = (cases.c.run_id == bindparam("run"), cases.c.case_id == bindparam("case"))
_HAND = update(cases).where(*_ONE).values(handed=_HANDED)
_RESET = (
    update(cases)
    .where(
        cases.c.run_id == bindparam("run"),
        cases.c.answer_n.is_(None),
        cases.c.handed != _WITHDRAWN,
    )
    .values(handed=_WAITS)
)
_WITHDRAW = (
    update(cases)
    .where(
        cases.c.run_id == bindparam("run"),
        cases.c.answer_n.is_(None),
        cases.c.handed == _WAITS,
    )
    .values(handed=_WITHDRAWN)
)
_AGAIN = (
    update(cases)
    .where(cases.c.run_id == bindparam("run"), cases.c.handed == _WITHDRAWN)
    .values(handed=_WAITS)
)
_ANSWERED = update(cases).where(*_ONE).values(answer_n=bindparam("number"))
_ANSWER = (
    select(cases.c.case_id, entries.c.body)
    .select_from(
        cases.outerjoin(
            entries, (entries.c.run_id == cases.c.run_id) & (entries.c.n == cases.c.answer_n)
        )
    )
    .where(*_ONE)
)


def put_cases(tx: Transaction, run_id: str, given: Sequence[tuple[str, dict[str, Any]]]) -> None:
    """Add cases; see ``Ledger.put_cases``."""
    tx.lock_run(run_id)
    known = {row.case_id: json.loads(row.inputs) for row in tx.all(_KNOWN, run=run_id)}
    rows: list[dict[str, Any]] = []
    for case_id, inputs in given:
        check_plain(case_id, "case id")
        check_payload(inputs, f"case {case_id}")
        if case_id not in known:
            position, known[case_id] = len(known), inputs
            text = json_text(inputs)
            columns = {"case_id": case_id, "position": position, "inputs": text}
            rows.append({"run_id": run_id, "handed": _WAITS, "answer_n": None, **columns})
        elif known[case_id] != inputs:
            raise Conflict(
                f"case {case_id} of {run_id} was given before with other inputs",
                where=run_id,
                next_step="give each case its own id, or start another run",
            )
    if len(rows) < len(known):
        tx.run(_AGAIN, {"run": run_id})  # what was withdrawn is given again
    if rows:
        digests = {row["case_id"]: digest_json(json.loads(row["inputs"])) for row in rows}
        tx.append(run_id, EntryType.CASES_PUT, {"cases": digests}, at_us=tx.clock.now_us())
        tx.run(_INSERT, rows)


def next_case(tx: Transaction, run_id: str) -> tuple[str, dict[str, Any]] | None:
    """Hand out the next case; see ``Ledger.next_case``."""
    tx.lock_run(run_id)
    row = tx.first(_NEXT, run=run_id)
    if row is None:
        return None
    tx.run(_HAND, {"run": run_id, "case": row.case_id})
    return row.case_id, json.loads(row.inputs)


def reset_cases(tx: Transaction, run_id: str) -> None:
    """Make every unanswered case available again."""
    tx.lock_run(run_id)
    tx.run(_RESET, {"run": run_id})


def withdraw_cases(tx: Transaction, run_id: str) -> None:
    """Hand out nothing more; see ``Ledger.withdraw_cases``."""
    tx.lock_run(run_id)
    tx.run(_WITHDRAW, {"run": run_id})


def answer_case(
    tx: Transaction, run_id: str, case_id: str, output: Any, error: dict[str, Any] | None
) -> None:
    """Record the answer to a case, once; see ``Ledger.answer_case``."""
    tx.lock_run(run_id)
    check_payload(output, "output")
    check_payload(error, "error")
    row = tx.first(_ANSWER, run=run_id, case=case_id)
    if row is None:
        raise NotFound(
            f"the run {run_id} has no case {case_id!a}",
            where=run_id,
            next_step="answer only cases that next_case handed out",
        )
    body = {"case_id": case_id, "output": output, "error": error}
    if row.body is not None:
        if json.loads(row.body) != json.loads(json_text(body)):
            raise Conflict(
                f"case {case_id} of {run_id} was answered before, and differently",
                where=run_id,
                next_step="the first answer counts; start another run to answer again",
            )
        return
    number = tx.append(run_id, EntryType.CASE_ANSWERED, body, at_us=tx.clock.now_us())
    tx.run(_ANSWERED, {"run": run_id, "case": case_id, "number": number})
