"""`toolkit registry log --csv|--jsonl` and `verify`: for auditors."""

from __future__ import annotations

import csv
import io
import json

from cli_world import toolkit

from toolkit.registry import Registry
from toolkit.settings import Workspace

NASTY = "=cmd()\x1b[2J\n"


def test_the_log_is_exported_whole(workspace: Workspace) -> None:
    """Every record in both forms, links of the chain included; no cell is a formula or a command."""
    registry = Registry(workspace.registry)
    for turn in range(60):  # more than the 50 that are shown
        registry.record("review.note", {"turn": turn}, by=NASTY)
    records = list(registry.audit())
    lines = [json.loads(line) for line in toolkit("registry", "log", "--jsonl").out.splitlines()]
    assert [(row["n"], row["hash"], row["prev"]) for row in lines] == [
        (record.n, record.hash, record.prev) for record in records
    ]
    assert lines[-1]["by"] == NASTY
    assert not any(row["signed"] for row in lines)
    text = toolkit("registry", "log", "--csv").out
    assert "\x1b" not in text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [int(row["n"]) for row in rows] == [record.n for record in records]
    assert json.loads(rows[-1]["body"]) == {"turn": 59}
    assert rows[-1]["by"].startswith("'=cmd()")


def test_one_form_at_a_time(workspace: Workspace) -> None:
    """Two forms at once are a mistake of usage."""
    assert toolkit("registry", "log", "--csv", "--jsonl").code == 2


def test_verify_tells_every_fault_and_how_far_it_sees(workspace: Workspace) -> None:
    """All faults at once; with none, up to where a cut tail shows."""
    registry = Registry(workspace.registry)
    registry.record("review.note", {}, by="ana")
    found = toolkit("registry", "verify", "--json")
    assert found.code == 0
    last = list(registry.audit())[-1]
    assert (found.json["records"], found.json["head"]) == (last.n, last.hash)
    assert found.json["vouched_until"] == 0
    assert "only against a head kept elsewhere" in toolkit("registry", "verify").out
    for name in ("a", "b"):
        sealed = registry.seal(name, {"notebook.ipynb": b"{}"}, {"by": "ana"})
        (sealed.path / "extra.txt").write_text("planted")
    found = toolkit("registry", "verify", "--json")
    assert found.code == 78
    assert [f["where"] for f in found.json["faults"]] == [
        "jobs/a/1/extra.txt",
        "jobs/b/1/extra.txt",
    ]
