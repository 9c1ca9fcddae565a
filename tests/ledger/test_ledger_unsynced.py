"""Writes that may reach the disk together with a later one: what survives what."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from ledger_world import ALLOW, OK, a_run, an_intent, nanos
from sqlalchemy import event
from sqlalchemy.pool import Pool

from toolkit.errors import BudgetExceeded, LedgerError, NotFound
from toolkit.ledger import Ledger, LedgerWriter, Occupied
from toolkit.ledger.log_file import LOG_BYTES, PAGE_BYTES, LogFile, pages_in_log

_BEGIN_UNSYNCED = """
import os, signal, sys
from toolkit.ledger import Ledger
from ledger_world import ALLOW, a_run, an_intent, nanos
ledger = Ledger.open(sys.argv[1])
a_run(ledger)
reserve = nanos("s", 1000, 600)
ledger.write_all([lambda s: s.begin(an_intent({"n": 1}), ALLOW, reserve=reserve)], synced=False)
os.kill(os.getpid(), signal.SIGKILL)
"""


def die(code: str, url: str) -> None:
    """Run code that kills its own process in the middle of its work."""
    here = str(Path(__file__).parent)
    code = f"import sys; sys.path.insert(0, {here!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code, url], check=False)
    assert done.returncode == -signal.SIGKILL


def test_an_unsynced_intent_outlives_the_death_of_its_process(sqlite_url):
    """Intent and reservation are with the operating system when the writer returns."""
    die(_BEGIN_UNSYNCED, sqlite_url)
    with Ledger.open(sqlite_url) as ledger:
        (call,) = ledger.calls("run-1")
        assert call.outcome is None
        assert ledger.budget("s").reserved.nanos == 600
        with pytest.raises(BudgetExceeded):
            ledger.begin(
                an_intent({"n": 2}, request_id="another"),
                ALLOW,
                reserve=nanos("s", 1000, 600),
            )
        assert ledger.verify() == []


def test_only_what_may_be_unsynced_is_and_the_next_commit_makes_up_for_it(sqlite_url):
    """The connection that commits is set to FULL for every write that has to be on disk."""
    seen: list[int] = []

    def level(session) -> None:
        seen.append(_levels[-1].execute("PRAGMA synchronous").fetchone()[0])

    _levels: list[sqlite3.Connection] = []

    def taken(raw, _record, _proxy) -> None:
        _levels.append(raw)

    event.listen(Pool, "checkout", taken)
    try:
        with Ledger.open(sqlite_url) as ledger:
            for synced in (True, False, False, True):
                ledger.write_all([level], synced=synced)
            ledger.write_all([level, level], synced=False)
            ledger.write_all([level])
    finally:
        event.remove(Pool, "checkout", taken)
    normal, full = 1, 2
    assert seen == [full, normal, normal, full, normal, normal, full]


def test_a_promise_is_kept_in_the_loop_that_made_it(ledger, url):
    """Values and errors of operations come back to the event loop; one that is given up is not run."""
    a_run(ledger)

    async def work(writer: LedgerWriter) -> None:
        begun = await writer.promise(lambda s: s.begin(an_intent({"n": 1}), ALLOW), synced=False)
        done = await writer.promise(lambda s: s.finish(begun.call, OK))
        assert done.outcome == OK
        reserve = nanos("s", 10, 20)
        with pytest.raises(BudgetExceeded):
            await writer.promise(lambda s: s.begin(an_intent({"n": 2}), ALLOW, reserve=reserve))
        many = [
            writer.promise(lambda s, n=n: s.begin(an_intent({"n": n}), ALLOW), synced=n % 2 == 0)
            for n in range(3, 20)
        ]
        assert all(each.fresh for each in await asyncio.gather(*many))
        gone = writer.promise(lambda s: s.begin(an_intent({"n": 99}), ALLOW))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone

    with LedgerWriter(ledger) as writer:
        asyncio.run(work(writer))
        with pytest.raises(LedgerError):
            asyncio.run(_late(writer))
    assert len(ledger.calls("run-1")) in (18, 19)
    assert ledger.verify() == []


async def _late(writer: LedgerWriter) -> None:
    writer.close()
    await writer.promise(lambda s: s.begin(an_intent({"n": 1}), ALLOW))


def test_a_broken_connection_is_not_used_again(sqlite_url):
    """After a failed write the ledger takes another connection to its file."""
    with Ledger.open(sqlite_url) as ledger:
        a_run(ledger)
        path = sqlite_url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE traces")
            with pytest.raises(LedgerError):
                ledger.begin(an_intent({"n": 1}), ALLOW)
            other.execute("CREATE TABLE traces (run_id, base, calls, PRIMARY KEY (run_id, base))")
        assert ledger.begin(an_intent({"n": 1}), ALLOW).fresh


def test_an_unsynced_write_is_made_at_once_or_by_the_ledgers_thread(ledger, url):
    """In the loop's thread while nobody writes; behind a writer of another process it waits elsewhere."""
    a_run(ledger)
    threads: list[int] = []

    def begin(session, n):
        threads.append(threading.get_ident())
        return session.begin(an_intent({"n": n}), ALLOW)

    async def work(writer: LedgerWriter) -> None:
        here = threading.get_ident()
        await writer.promise(lambda s: begin(s, 1), synced=False)
        with pytest.raises(NotFound):
            await writer.promise(lambda s: s.begin(an_intent(run_id="none"), ALLOW), synced=False)
        at_once = threads.pop() == here
        assert at_once is url.startswith("sqlite")
        if not at_once:
            return
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
            other.execute("BEGIN IMMEDIATE")
            waiting = writer.promise(lambda s: begin(s, 2), synced=False)
            behind = writer.promise(lambda s: begin(s, 3))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            other.rollback()
            assert (await waiting).fresh
            assert (await behind).fresh
        assert here not in threads

    with LedgerWriter(ledger) as writer:
        asyncio.run(work(writer))
    assert ledger.verify() == []


_DIE_AT_ONCE = """
import asyncio, os, signal, sys
from toolkit.ledger import Ledger, LedgerWriter
from ledger_world import ALLOW, a_run, an_intent, nanos
ledger = Ledger.open(sys.argv[1])
a_run(ledger)
async def work():
    writer = LedgerWriter(ledger)
    reserve = nanos("s", 1000, 600)
    await writer.promise(
        lambda s: s.begin(an_intent({"n": 1}), ALLOW, reserve=reserve), synced=False
    )
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(work())
"""


def test_a_write_made_at_once_outlives_the_death_of_its_process(sqlite_url):
    """What the loop wrote itself is as safe as what the ledger's thread wrote."""
    die(_DIE_AT_ONCE, sqlite_url)
    with Ledger.open(sqlite_url) as ledger:
        (call,) = ledger.calls("run-1")
        assert call.outcome is None
        assert ledger.budget("s").reserved.nanos == 600
        assert ledger.verify() == []


def test_the_log_is_moved_into_the_database_although_half_the_writes_leave_it(sqlite_url):
    """Writes made at once move no pages; the ledger's thread does, and SQLite cuts the log."""

    async def work(writer: LedgerWriter) -> None:
        for n in range(150):
            begun = await writer.promise(
                lambda s, n=n: s.begin(an_intent({"n": n, "text": "x" * 200_000}), ALLOW),
                synced=False,
            )
            await writer.promise(lambda s, begun=begun: s.finish(begun.call, OK))

    log = Path(sqlite_url.removeprefix("sqlite:///") + "-wal")
    with Ledger.open(sqlite_url) as ledger:
        a_run(ledger)
        with LedgerWriter(ledger) as writer:
            asyncio.run(work(writer))
        # Pages are moved from 8 MB on; in all more than 30 MB were written.
        assert log.stat().st_size < 16_000_000
        assert ledger.verify() == []


class Disk:
    """A sync that can be held up, or fail."""

    def __init__(self) -> None:
        self.threads: list[int] = []
        self.asked, self.goes = threading.Event(), threading.Event()
        self.goes.set()
        self.broken = False

    def __call__(self, file: int) -> None:
        self.threads.append(threading.get_ident())
        self.asked.set()
        self.goes.wait(120)
        if self.broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fdatasync(file)


def test_a_synced_write_is_made_in_the_loop_and_is_told_of_after_the_sync(sqlite_url):
    """The ledger's thread only syncs; what comes meanwhile and is not synced does not wait for it."""
    disk = Disk()
    wrote: list[int] = []

    def begin(session, n):
        wrote.append(threading.get_ident())
        return session.begin(an_intent({"n": n}), ALLOW)

    async def work(writer: LedgerWriter) -> None:
        here = threading.get_ident()
        await writer.settled()
        assert disk.threads == []  # there was nothing to wait for
        disk.goes.clear()
        first = writer.promise(lambda s: begin(s, 1))
        assert wrote == [here]
        await asyncio.to_thread(disk.asked.wait, 60)  # the ledger's thread has taken it up
        assert (await writer.promise(lambda s: begin(s, 2), synced=False)).fresh
        behind = writer.promise(lambda s: begin(s, 3))
        settled = asyncio.ensure_future(writer.settled())
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not behind.done()
        assert not settled.done()
        assert wrote == [here, here]  # the third waits for its turn in the thread
        disk.goes.set()
        assert (await first).fresh
        assert (await behind).fresh
        await settled
        assert wrote[2] != here
        assert here not in disk.threads

    with Ledger.open(sqlite_url, sync=disk) as ledger:
        a_run(ledger)
        with LedgerWriter(ledger) as writer:
            asyncio.run(work(writer))
        assert len(ledger.calls("run-1")) == 3
        assert ledger.verify() == []


@pytest.mark.parametrize(("quick_s", "alone"), [(60.0, True), (60.0, False), (0.0, True)])
def test_a_loop_that_is_alone_syncs_itself_while_the_disk_is_quick(sqlite_url, quick_s, alone):
    """The first sync, which tells how quick it is, is the thread's, and so is each one that others wait for."""
    disk, itself = Disk(), alone and quick_s > 0

    async def work(writer: LedgerWriter) -> None:
        for n in range(1_000 if itself else 5):  # until the thread has nothing to do any more
            done = writer.promise(lambda s, n=n: s.begin(an_intent({"n": n}), ALLOW), alone=alone)
            assert not (n == 0 and done.done())
            if done.done():
                break
            assert (await done).fresh
            await asyncio.sleep(0.005)
        disk.broken = True
        with pytest.raises(LedgerError, match="did not keep"):
            await writer.promise(lambda s: s.begin(an_intent({"n": 9}), ALLOW), alone=alone)
        with pytest.raises(LedgerError, match="did not keep"):
            await writer.promise(lambda s: s.begin(an_intent({"n": 10}), ALLOW), synced=False)

    with Ledger.open(sqlite_url, sync=disk) as ledger:
        a_run(ledger)
        with LedgerWriter(ledger, quick_s=quick_s) as writer:
            asyncio.run(work(writer))
        assert (threading.get_ident() in disk.threads) is itself
        assert ledger.verify() == []


def test_after_a_failed_sync_nothing_more_is_promised(sqlite_url):
    """Whoever waited is told, and so is everybody after them, until the ledger is opened again."""
    disk = Disk()

    async def work(writer: LedgerWriter) -> None:
        disk.broken = True
        with pytest.raises(LedgerError, match="did not keep"):
            await writer.promise(lambda s: s.begin(an_intent({"n": 1}), ALLOW))
        disk.broken = False
        for synced in (True, False):
            with pytest.raises(LedgerError, match="did not keep") as told:
                await writer.promise(lambda s: s.begin(an_intent({"n": 2}), ALLOW), synced=synced)
            assert told.value.next_step
        with pytest.raises(LedgerError, match="did not keep"):
            await writer.settled()

    with Ledger.open(sqlite_url, sync=disk) as ledger:
        a_run(ledger)
        with LedgerWriter(ledger) as writer:
            asyncio.run(work(writer))
        assert len(ledger.calls("run-1")) == 1
        with LedgerWriter(ledger) as writer:
            assert writer.begin(an_intent({"n": 3}), ALLOW).result().fresh


def test_a_log_that_was_made_anew_is_the_one_that_is_synced(tmp_path):
    """SQLite deletes its log with the last connection to the file; who closed that closes this."""
    inodes: list[int] = []
    log = LogFile(str(tmp_path / "x"), lambda file: inodes.append(os.fstat(file).st_ino))
    with pytest.raises(FileNotFoundError):
        log.sync()
    path = tmp_path / "x-wal"
    path.write_bytes(b"1")
    first = path.stat().st_ino
    log.sync()
    log.sync()
    kept = path.open("rb")  # so that its number is not given away again
    path.unlink()
    log.close()
    with pytest.raises(FileNotFoundError):
        log.sync()
    path.write_bytes(b"2")
    log.sync()
    log.close()
    kept.close()
    assert inodes == [first, first, path.stat().st_ino]
    assert len(set(inodes)) == 2


def test_the_log_is_long_from_its_limit_on(tmp_path):
    """However it came to be that long; a log that nobody has synced yet is not looked at."""
    path = tmp_path / "x-wal"
    path.write_bytes(b"1")
    log = LogFile(str(tmp_path / "x"))
    assert not log.long
    log.sync()
    assert not log.long
    os.truncate(path, LOG_BYTES + 1)
    assert log.long
    log.close()
    assert not log.long


def test_a_ledger_keeps_the_pages_that_it_was_made_with(tmp_path):
    """A new one has small pages; the log of an older one is moved at the same length."""
    path = tmp_path / "ledger.db"
    with closing(sqlite3.connect(path)) as made:
        made.execute("PRAGMA page_size=4096")
        made.execute("CREATE TABLE older (a)")
    url = f"sqlite:///{path}"
    with Ledger.open(url) as ledger:
        a_run(ledger)
        assert ledger.begin(an_intent({"n": 1}), ALLOW).fresh
    with closing(sqlite3.connect(path)) as found:
        assert found.execute("PRAGMA page_size").fetchone() == (4096,)
    assert pages_in_log(4096) * (4096 + 24) <= LOG_BYTES
    with Ledger.open(f"sqlite:///{tmp_path / 'new.db'}"):
        pass
    with closing(sqlite3.connect(tmp_path / "new.db")) as found:
        assert found.execute("PRAGMA page_size").fetchone() == (PAGE_BYTES,)


def test_the_log_stays_short_while_calls_keep_coming(sqlite_url):
    """It is shortened beside the writers; a reader may keep it long for a while, and no longer."""
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    log = path.with_name(f"{path.name}-wal")
    filler = "x" * 20_000

    async def call_for(writer: LedgerWriter, numbers: range, *, alone: bool = False) -> None:
        for n in numbers:
            begun = await writer.promise(
                lambda s, n=n: s.begin(an_intent({"n": n, "text": filler}), ALLOW), synced=False
            )
            await writer.promise(lambda s, call=begun.call: s.finish(call, OK), alone=alone)

    with Ledger.open(sqlite_url) as ledger:
        a_run(ledger)
        with LedgerWriter(ledger, quick_s=60) as writer:
            asyncio.run(call_for(writer, range(600)))
            assert log.stat().st_size < 2 * LOG_BYTES
            with closing(sqlite3.connect(path)) as reader:
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM calls").fetchone()
                asyncio.run(call_for(writer, range(600, 1_400), alone=True))
                assert log.stat().st_size > 2 * LOG_BYTES
            asyncio.run(call_for(writer, range(1_400, 1_700)))
            assert log.stat().st_size < 2 * LOG_BYTES
        assert ledger.verify() == []


def test_a_run_is_found_at_once_unless_that_takes_a_wait(sqlite_url):
    """An event loop asks without a thread; while somebody writes, it is told to ask another way."""
    with Ledger.open(sqlite_url) as ledger:
        run = a_run(ledger, token_digest="sha256:token")
        assert ledger.find_run_at_once("sha256:token") == ledger.find_run("sha256:token") == run
        assert ledger.find_run_at_once("sha256:other") is None
        inside, goes = threading.Event(), threading.Event()

        def hold(session):
            inside.set()
            goes.wait(60)
            return session.begin(an_intent({"n": 1}), ALLOW)

        with LedgerWriter(ledger) as writer:
            held = writer.submit(hold)
            inside.wait(60)
            with pytest.raises(Occupied):
                ledger.find_run_at_once("sha256:token")
            goes.set()
            assert held.result().fresh
        assert ledger.find_run_at_once("sha256:token") == run
