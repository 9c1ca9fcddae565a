"""The ledger fails closed: full, read-only, locked, damaged, unreachable, and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from ledger_world import OK, a_call, a_run, begin, nanos
from sqlalchemy import event
from sqlalchemy.pool import Pool

from toolkit.errors import ConfigurationError, LedgerError
from toolkit.ledger import FaultKind, Ledger, LedgerWriter
from toolkit.ledger.schema import HEAD_VERSION
from toolkit.values import CallState


@contextmanager
def _each_connection(statement: str, undo: str):
    """Run a PRAGMA whenever a ledger takes a SQLite connection, until the block ends.

    A ledger keeps the one that it writes with until a write fails, so open it inside.
    """
    current = [statement]

    def apply(raw, _record, _proxy):
        if isinstance(raw, sqlite3.Connection):
            raw.execute(current[0])

    event.listen(Pool, "checkout", apply)
    try:
        yield lambda: current.__setitem__(0, undo)
    finally:
        event.remove(Pool, "checkout", apply)


def _pages(url: str) -> int:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
        return connection.execute("PRAGMA page_count").fetchone()[0]


def test_a_full_disk_records_nothing_and_the_ledger_works_again_afterwards(sqlite_url):
    """SQLite itself refuses further pages: no intent, no held budget, then all is well."""
    with Ledger.open(sqlite_url) as before:
        a_run(before)
    reserve = nanos("s", 10**9, 5)
    recorded, text = 0, "x" * 2000
    full = f"PRAGMA max_page_count = {_pages(sqlite_url) + 20}"
    with (
        _each_connection(full, "PRAGMA max_page_count = 1000000") as free_space,
        Ledger.open(sqlite_url) as ledger,
    ):
        with pytest.raises(LedgerError, match="no space is left") as caught:  # noqa: PT012
            for _ in range(1000):
                recorded += begin(ledger, {"n": recorded, "text": text}, reserve=reserve).fresh
        assert 0 < recorded < 1000
        assert caught.value.where.endswith("ledger.db")
        assert "free space" in caught.value.next_step
        assert len(ledger.calls("run-1")) == recorded == ledger.budget("s").reserved_calls
        assert ledger.verify() == []
        free_space()
        call = begin(ledger, {"n": recorded, "text": text}, reserve=reserve).call
        assert ledger.finish(call, OK).state is CallState.OK
        assert ledger.verify() == []


_SHORT_WRITES = """
import resource, signal, sys
from toolkit.errors import LedgerError
from toolkit.ledger import Ledger
from ledger_world import OK, a_run, begin
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger = Ledger.open(sys.argv[1])
a_run(ledger)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
acknowledged, refused = 0, 0
for number in range(30):
    try:
        begin(ledger, {"n": number, "text": "x" * 20_000})
        acknowledged += 1
    except LedgerError:
        refused += 1
assert acknowledged and refused, (acknowledged, refused)
assert len(ledger.calls("run-1")) == acknowledged, "what was refused must not be there"
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
ledger.finish(begin(ledger, {"after": 1}).call, OK)
assert ledger.verify() == [], ledger.verify()
print("recovered")
"""


def test_writes_that_the_kernel_cuts_short_record_nothing(sqlite_url, request):
    """A file size limit makes write() fail for real; lifting it makes the ledger work again."""
    done = _python(_SHORT_WRITES, sqlite_url, request)
    assert done.communicate()[0].decode() == "recovered\n"


def test_a_read_only_ledger_says_so(sqlite_url):
    """Reading goes on, writing is refused."""
    with Ledger.open(sqlite_url) as before:
        a_run(before)
    with (
        _each_connection("PRAGMA query_only = ON", "PRAGMA query_only = OFF") as writable,
        Ledger.open(sqlite_url) as ledger,
    ):
        with pytest.raises(LedgerError, match="read-only") as caught:
            begin(ledger)
        assert "writable" in caught.value.next_step
        assert ledger.get_run("run-1").run_id == "run-1"
        writable()
        assert begin(ledger).fresh


def test_a_locked_ledger_waits_then_refuses_then_works(sqlite_url):
    """Another process in a long write: LedgerError after the timeout, success after its end."""
    with Ledger.open(sqlite_url, busy_timeout_s=0.05) as ledger:
        a_run(ledger)
        path = sqlite_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerError, match="another process holds"):
                begin(ledger)
            other.execute("ROLLBACK")
        assert begin(ledger).fresh


def test_a_damaged_file_is_not_opened(empty_sqlite_url):
    """Garbage is reported as damage with a way back."""
    Path(empty_sqlite_url.removeprefix("sqlite:///")).write_bytes(b"not a database, " * 1000)
    with pytest.raises(LedgerError, match="damaged") as caught:
        Ledger.open(empty_sqlite_url)
    assert "restore the last backup" in caught.value.next_step


def test_a_missing_folder_is_named(tmp_path):
    """The error names the path and what to check."""
    with pytest.raises(LedgerError, match="No such file or directory") as caught:
        Ledger.open(f"sqlite:///{tmp_path}/none/ledger.db")
    assert caught.value.where == f"{tmp_path}/none/ledger.db"


@pytest.mark.parametrize(
    "bad",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:hunter2@h/d",
        "hunter2",
        "",
        "postgresql://u:hunter2@h:x/d",
    ],
)
def test_an_unusable_url_is_a_configuration_error_without_its_password(bad):
    """The URL is not repeated: it may hold a password."""
    with pytest.raises(ConfigurationError) as caught:
        Ledger.open(bad)
    assert "hunter2" not in str(caught.value.to_json())
    assert "sqlite:///PATH" in caught.value.next_step


def test_an_unreachable_server_is_try_again_later(tmp_path):
    """No server: exit code 75, and no password in sight."""
    with pytest.raises(LedgerError, match="cannot be reached") as caught:
        Ledger.open("postgresql://ana:hunter2@127.0.0.1:1/ledger")
    assert caught.value.where == "postgresql://127.0.0.1:1/ledger"
    assert "hunter2" not in str(caught.value.to_json())


def test_a_missing_database_is_a_configuration_error(postgres):
    """Trying again will not create it; what does is the next step."""
    with pytest.raises(ConfigurationError, match="database does not exist") as caught:
        Ledger.open(postgres.get_uri("no_such_database"))
    assert "createdb" in caught.value.next_step


def test_a_ledger_of_a_newer_toolkit_is_not_touched(ledger, url):
    """An unknown format is refused, naming both."""
    _execute(url, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(ConfigurationError, match="has format 9999, this toolkit knows"):
            Ledger.open(url)
    finally:
        _execute(url, f"UPDATE alembic_version SET version_num = '{HEAD_VERSION}'")


def test_a_server_that_drops_its_connections_is_survived(postgres_url):
    """After a restart of PostgreSQL, the ledger connects again by itself."""
    with Ledger.open(postgres_url) as ledger:
        a_run(ledger)
        _execute(
            postgres_url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        with pytest.raises(LedgerError, match="cannot be reached"):
            begin(ledger, {"n": 1})
        assert begin(ledger, {"n": 1}).fresh
        assert ledger.verify() == []


def test_a_read_only_server_says_so(empty_postgres_url):
    """A stand-by, or an administrator's default: reading goes on, writing is refused."""
    with Ledger.open(empty_postgres_url) as ledger:
        a_run(ledger)
    name = psycopg.conninfo.conninfo_to_dict(empty_postgres_url)["dbname"]
    _execute(empty_postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with Ledger.open(empty_postgres_url) as ledger:
        assert ledger.get_run("run-1").run_id == "run-1"
        with pytest.raises(LedgerError, match="read-only"):
            begin(ledger)


def test_only_the_owner_can_read_a_new_sqlite_ledger(empty_sqlite_url):
    """Arguments and answers may be confidential: mode 0600, WAL included."""
    with Ledger.open(empty_sqlite_url) as ledger:
        a_run(ledger)
        folder = Path(empty_sqlite_url.removeprefix("sqlite:///")).parent
        modes = {path.name: path.stat().st_mode & 0o777 for path in folder.glob("ledger.db*")}
    assert modes == dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600)


def test_sqlite_flushes_every_commit(sqlite_url):
    """WAL with synchronous=FULL, on every connection of the pool."""
    seen = set()

    def look(raw, _record, _proxy):
        modes = [
            raw.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")
        ]
        seen.add(tuple(modes))

    with Ledger.open(sqlite_url) as ledger:
        a_run(ledger)
        event.listen(Pool, "checkout", look)
        try:
            threads = [threading.Thread(target=begin, args=(ledger, n)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ledger.calls("run-1")
        finally:
            event.remove(Pool, "checkout", look)
    assert seen == {("wal", 2)}


_OPEN = """
import sys
from toolkit.ledger import Ledger
from ledger_world import a_run, begin
ledger = Ledger.open(sys.argv[1])
a_run(ledger)
begin(ledger, {"who": sys.argv[2]}, request_id=sys.argv[2])
print("ready")
"""


def test_many_processes_may_open_a_new_ledger_at_once(empty_url, request):
    """One migrates, the others wait; everybody can write."""
    workers = [_python(_OPEN, empty_url, request, str(number)) for number in range(5)]
    said = [worker.communicate()[0] for worker in workers]
    assert said == [b"ready\n"] * 5
    with Ledger.open(empty_url) as ledger:
        assert len(ledger.calls("run-1")) == 5
        assert ledger.head("run-1").n == 6
        assert ledger.verify() == []


_BUSY = """
import os, sys, threading
from toolkit.ledger import Ledger, LedgerWriter
from ledger_world import ALLOW, OK, a_run, an_intent, nanos
ledger = Ledger.open(sys.argv[1])
a_run(ledger)
writer = LedgerWriter(ledger)
def work(who):
    for number in range(100_000):
        intent = an_intent({"who": who, "n": number}, request_id=f"{who}-{number}")
        call = writer.begin(intent, ALLOW, reserve=nanos("s", None, 1000)).result().call
        os.write(1, f"begun {call.key}\\n".encode())
        writer.finish(call, OK).result()
        os.write(1, f"done {call.key}\\n".encode())
threads = [threading.Thread(target=work, args=(who,)) for who in range(4)]
[thread.start() for thread in threads]
"""


@pytest.mark.parametrize("lines", [1, 60, 301])
def test_every_acknowledged_call_survives_kill_9(url, ledger, request, lines):
    """After kill -9 in the middle: what was acknowledged is there, and chain and budget hold."""
    child = _python(_BUSY, url, request)
    read = [child.stdout.readline() for _ in range(lines)]
    os.kill(child.pid, signal.SIGKILL)
    read += child.stdout.read().splitlines(keepends=True)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    said = [line.decode().split() for line in read if line.endswith(b"\n")]
    recorded = {call.key: call for call in ledger.calls("run-1", limit=100_000)}
    assert len(said) >= lines
    for word, key in said:
        assert key in recorded
        assert word == "begun" or recorded[key].outcome == OK
    assert ledger.verify() == []
    # Each of the four threads leaves at most one call in doubt.
    assert sum(call.outcome is None for call in recorded.values()) <= 4
    assert begin(ledger, {"after": "the crash"}).fresh


def test_a_failed_commit_fails_every_future_of_the_group(sqlite_url):
    """Nobody is told that something is recorded when it is not, and the writer lives on."""
    with Ledger.open(sqlite_url) as before:
        a_run(before)
    full = f"PRAGMA max_page_count = {_pages(sqlite_url) + 10}"
    with (
        _each_connection(full, "PRAGMA max_page_count = 1000000") as free_space,
        Ledger.open(sqlite_url) as ledger,
        LedgerWriter(ledger) as writer,
    ):
        held, gate = threading.Event(), threading.Event()
        first = writer.submit(lambda _: (held.set(), gate.wait()))
        held.wait()
        text = "x" * 3000
        futures = [
            writer.submit(lambda session, n=n: a_call(session, {"n": n, "text": text}))
            for n in range(40)
        ]
        gate.set()
        first.result()
        for future in futures:
            with pytest.raises(LedgerError, match="no space is left"):
                future.result()
        assert ledger.calls("run-1") == []
        free_space()
        assert writer.submit(lambda session: a_call(session, {"n": 1})).result().outcome == OK
        assert ledger.verify() == []


def test_a_rolled_back_page_of_sqlite_is_not_half_there(sqlite_url):
    """Cutting the WAL at any byte loses whole transactions from the end, never a part of one."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    with Ledger.open(sqlite_url) as ledger:
        a_run(ledger)
        for number in range(6):
            a_call(ledger, {"n": number}, reserve=nanos("s", None, 1000))
        database, wal = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    lengths = set()
    for cut in range(0, len(wal), max(1, len(wal) // 24)):
        path.write_bytes(database)
        Path(f"{path}-wal").write_bytes(wal[: len(wal) - cut])
        Path(f"{path}-shm").unlink(missing_ok=True)
        with Ledger.open(sqlite_url) as ledger:
            faults = ledger.verify()
            assert faults == [], faults
            lengths.add(len(ledger.runs()) and ledger.head("run-1").n)
    assert len(lengths) > 5
    assert FaultKind.GAP not in lengths


def _python(script: str, url: str, request, *more: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", script, url, *more],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": f"{request.config.rootpath}:{request.path.parent}"},
    )


def _execute(url: str, statement: str) -> None:
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection:
            connection.execute(statement)
            connection.commit()
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)
