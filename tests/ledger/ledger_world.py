"""Short ways to say what a test is about."""

from __future__ import annotations

import itertools
import re
import sqlite3
from contextlib import closing
from typing import Any

import psycopg

from toolkit.ledger import Begun, Ledger, Limit, Reservation
from toolkit.values import (
    CallKind,
    CallRecord,
    CallState,
    Decision,
    Environment,
    Intent,
    Money,
    Outcome,
    RunKind,
    RunRecord,
    Usage,
    Verdict,
)

ALLOW = Decision(Verdict.ALLOW, ("allow-models",), ("models are allowed",), "sha256:00")
DENY = Decision(Verdict.DENY, ("no-mail",), ("mail is not allowed",), "sha256:00")
OK = Outcome(
    CallState.OK,
    answer={"text": "yes"},
    usage=Usage(10, 5, 2),
    cost=Money(700),
    provider="openai",
    model="small",
)
_numbers = itertools.count()


def a_run(
    ledger: Ledger, run_id: str = "run-1", kind: RunKind = RunKind.RUN, **fields
) -> RunRecord:
    return ledger.create_run(RunRecord(run_id, kind, Environment.PRODUCTION, "ana", **fields))


def an_intent(arguments: Any = None, **fields: Any) -> Intent:
    given = {
        "run_id": "run-1",
        "kind": CallKind.MODEL,
        "name": "default",
        "request_id": f"request-{next(_numbers)}",
        **fields,
    }
    return Intent(arguments={} if arguments is None else arguments, **given)


def begin(
    ledger: Ledger, arguments: Any = None, *, reserve=None, decision=ALLOW, **fields
) -> Begun:
    return ledger.begin(an_intent(arguments, **fields), decision, reserve=reserve)


def a_call(ledger: Ledger, arguments: Any = None, outcome: Outcome = OK, **fields) -> CallRecord:
    return ledger.finish(begin(ledger, arguments, **fields).call, outcome)


def nanos(scope: str, limit: int | None, worst: int | None, **more: Any) -> Reservation:
    """Hold ``worst`` nano-dollars in a scope that may use ``limit``."""
    usd = None if limit is None else Money(limit)
    cost = None if worst is None else Money(worst)
    return Reservation((Limit(scope, usd=usd),), cost, **more)


def tamper(url: str, statement: str, **values: Any) -> int:
    """Change the database behind the ledger's back."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), timeout=30)) as connection:
            count = connection.execute(statement, values).rowcount
            connection.commit()
        return count
    with psycopg.connect(url) as connection:
        return connection.execute(re.sub(r":([a-z]\w*)", r"%(\1)s", statement), values).rowcount
