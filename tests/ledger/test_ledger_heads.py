"""Heads of chains that are kept outside of the ledger show what a chain cannot show of itself."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from ledger_world import a_call, a_run, nanos, tamper

from toolkit.errors import LedgerError
from toolkit.ledger import ChainHead, HeadFile, Ledger
from toolkit.ledger.chain import SWITCHES, entry_hash
from toolkit.values import RunState

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "heads.jsonl"


@pytest.fixture
def kept(tmp_path: Path, file: Path) -> Iterator[Ledger]:
    """A ledger with a run that has ended and one that has not, and its heads in a file."""
    with Ledger.open(f"sqlite:///{tmp_path / 'ledger.db'}", heads=file) as ledger:
        a_run(ledger)
        a_run(ledger, "run-2")
        a_call(ledger, {"n": 1}, reserve=nanos("run:run-1", 10_000, 900))
        a_call(ledger, {"n": 2}, reserve=nanos("run:run-1", 10_000, 900))
        ledger.update_run("run-1", state=RunState.SUCCEEDED)
        yield ledger


def faults(ledger: Ledger, file: Path, run_id: str | None = None) -> list[str]:
    heads, found = HeadFile(file).read()
    mine = [head for head in heads if run_id in (None, head.run_id)]
    return [fault.message for fault in [*found, *ledger.verify(run_id, expected=mine)]]


def rewritten(
    database: Path,
    run_id: str = "run-1",
    what: tuple[str, str] = ('"arguments":{"n":1}', '"arguments":{"n":9}'),
) -> None:
    """Change what a run's entries say and recompute every hash after it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        prev = ""
        rows = connection.execute("SELECT * FROM entries WHERE run_id = ? ORDER BY n", (run_id,))
        for row in rows.fetchall():
            facts = {name: row[name] for name in row.keys() if name not in ("hash", "prev", "body")}  # noqa: SIM118
            body = row["body"].replace(*what)
            digest = entry_hash(**facts, prev=prev, body=body)
            connection.execute(
                "UPDATE entries SET body = ?, prev = ?, hash = ? WHERE run_id = ? AND n = ?",
                (body, prev, digest, run_id, row["n"]),
            )
            prev = digest
        connection.commit()


def cut(database: Path) -> None:
    """Take the last call and the end of the run, with everything that is derived from them."""
    url = f"sqlite:///{database}"
    tamper(url, "DELETE FROM entries WHERE run_id = 'run-1' AND n > 3")
    tamper(url, "DELETE FROM calls WHERE run_id = 'run-1' AND intent_n > 3")
    tamper(url, "UPDATE runs SET state = 'queued', ended_us = NULL WHERE run_id = 'run-1'")
    us = "SELECT json_extract(body, '$.charged.us') FROM entries WHERE run_id = 'run-1' AND n = 3"
    spent = f"spent_nanos = 700, spent_tokens = 15, spent_calls = 1, spent_us = ({us})"
    tamper(url, f"UPDATE budgets SET {spent}")


def removed(database: Path) -> None:
    """Take the whole run and its budget."""
    url = f"sqlite:///{database}"
    for table in ("entries", "calls", "runs"):
        tamper(url, f"DELETE FROM {table} WHERE run_id = 'run-1'")
    tamper(url, "DELETE FROM budgets")


@pytest.mark.parametrize(
    ("tamper_with", "told"),
    [
        (rewritten, "entry 6 is not the one that was anchored"),
        (cut, "the chain ends at entry 3, before the anchored entry 6"),
        (removed, "the run is missing: its entry 6 was anchored"),
    ],
)
def test_what_a_chain_cannot_show_of_itself_is_found(
    kept: Ledger, file: Path, tmp_path: Path, tamper_with: Callable[[Path], None], told: str
) -> None:
    """Each of them verifies clean without the head that was kept when the run ended."""
    assert faults(kept, file) == []
    tamper_with(tmp_path / "ledger.db")
    assert kept.verify() == []
    assert told in faults(kept, file)
    assert told in faults(kept, file, "run-1")
    assert faults(kept, file, "run-2") == []


def test_runs_are_anchored_when_they_end_and_switches_at_each_change(
    kept: Ledger, file: Path
) -> None:
    """A run that goes on and ends again has two anchors; what comes after the last has none."""
    kept.stop("all", "ana")
    kept.start("all", "ana")
    kept.update_run("run-2", state=RunState.LOST)
    kept.update_run("run-2", state=RunState.RUNNING)
    kept.take(kept.get_run("run-2"), state=RunState.SUCCEEDED)  # the way of runners
    heads, found = HeadFile(file).read()
    assert found == []
    assert [head.run_id for head in heads] == ["run-1", SWITCHES, SWITCHES, "run-2", "run-2"]
    assert heads[-1] == kept.head("run-2")
    assert kept.ended_runs() == ["run-1", "run-2"]
    kept.update_run("run-2", mlflow_run_id="m")  # after its end
    assert faults(kept, file) == []


@pytest.mark.parametrize("how", ["edit", "drop", "nonsense"])
def test_a_changed_file_of_heads_is_found(kept: Ledger, file: Path, how: str) -> None:
    """Lines are bound to one another, so an altered or missing line shows."""
    kept.stop("all", "ana")
    kept.start("all", "ana")
    lines = file.read_text().splitlines()
    if how == "edit":
        lines[0] = json.dumps(
            {**json.loads(lines[0]), "n": 2}, sort_keys=True, separators=(",", ":")
        )
    elif how == "drop":
        del lines[1]
    else:
        lines[1] = "x"
    file.write_text("".join(f"{line}\n" for line in lines))
    assert any("line 2" in message for message in faults(kept, file))


def test_half_a_line_that_a_crash_left_does_not_hide_the_next(kept: Ledger, file: Path) -> None:
    """It is told as a line that is no head; the heads around it still count."""
    with file.open("a") as lines:
        lines.write('{"format":"heads/1","run_id"')
    kept.update_run("run-2", state=RunState.LOST)
    heads, found = HeadFile(file).read()
    assert [head.run_id for head in heads] == ["run-1", "run-2"]
    assert [fault.message for fault in found] == ["line 2 is no head of a chain"]


def test_a_disk_that_refuses_stops_no_run(tmp_path: Path) -> None:
    """The run ends; that it has no anchor is told when the ledger is verified."""
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    with Ledger.open(f"sqlite:///{tmp_path}/l.db", heads=blocked / "heads.jsonl") as ledger:
        a_run(ledger)
        assert ledger.update_run("run-1", state=RunState.FAILED).state is RunState.FAILED
        assert ledger.verify() == []


def test_the_format_of_heads_stays_readable(tmp_path: Path) -> None:
    """A file as it was first written; a folder in its place is told."""
    golden = (
        '{"at_us":1,"format":"heads/1","hash":"sha256:00","n":3,"prev":"","run_id":"run-1"}\n'
        '{"at_us":2,"format":"heads/1","hash":"sha256:11","n":4,"prev":'
        '"sha256:2e9fe5f3b43fb1e16a6a6fdb0c2d4e8c0ac4f1a0f2f2a3fbcb0f3e6f00000000","run_id":"run-2"}\n'
    )
    path = tmp_path / "heads.jsonl"
    path.write_text(golden)
    heads, found = HeadFile(path).read()
    assert heads == [ChainHead("run-1", 3, "sha256:00"), ChainHead("run-2", 4, "sha256:11")]
    assert [fault.message for fault in found] == ["line 2 does not follow line 1"]
    with pytest.raises(LedgerError, match="cannot be read"):
        HeadFile(tmp_path).read()


@pytest.fixture
def yesterday(tmp_path: Path) -> Path:
    """A ledger of format 0002, to which the heads of the golden file belong."""
    path = tmp_path / "yesterday.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((GOLDEN / "format-0002.sql").read_text("utf-8"))
    return path


def test_a_heads_file_of_yesterday_still_vouches_for_its_ledger(yesterday: Path) -> None:
    """Written once by format heads/1 and never again; a chain that was edited since is told."""
    heads, found = HeadFile(GOLDEN / "heads-1.jsonl").read()
    assert [(head.run_id, head.n) for head in heads] == [("run-golden", 21), (SWITCHES, 3)]
    assert found == []
    with Ledger.open(f"sqlite:///{yesterday}") as ledger:
        assert faults(ledger, GOLDEN / "heads-1.jsonl") == []
    rewritten(yesterday, "run-golden", ("ana", "eve"))
    with Ledger.open(f"sqlite:///{yesterday}") as ledger:
        told = faults(ledger, GOLDEN / "heads-1.jsonl")
    assert "entry 21 is not the one that was anchored" in told


def test_the_lines_of_heads_are_written_as_they_always_were(tmp_path: Path) -> None:
    """Byte by byte: a copy of yesterday's file is continued, and compared with."""
    golden = GOLDEN / "heads-1.jsonl"
    made = HeadFile(tmp_path / "heads.jsonl")
    for number, head in enumerate(HeadFile(golden).read()[0], start=1):
        made.append(head, number * 1_000_000)
    assert made.path.read_bytes() == golden.read_bytes()


def test_a_line_of_a_later_format_is_named_and_the_others_count(tmp_path: Path) -> None:
    """It is no damage, so what is to be done is another thing."""
    path = tmp_path / "heads.jsonl"
    path.write_bytes((GOLDEN / "heads-1.jsonl").read_bytes() + b'{"format":"heads/2","more":1}\n')
    heads, found = HeadFile(path).read()
    assert len(heads) == 2
    assert [fault.message for fault in found] == [
        (
            "line 3 has format heads/2, and this toolkit knows heads/1: verify with the toolkit that "
            "wrote it, or a later one"
        )
    ]
    path.write_text('{"format":"tails/1"}\n{"format":2}\n')
    assert [fault.message for fault in HeadFile(path).read()[1]] == [
        "line 1 is no head of a chain",
        "line 2 is no head of a chain",
    ]
