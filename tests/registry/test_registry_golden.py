"""Formats ``job/1``, ``aliases/1`` and ``audit/1``: files of that version are read for ever."""

from __future__ import annotations

import re
from pathlib import Path

from toolkit.registry import Registry
from toolkit.values import ManualClock

GOLDEN = Path(__file__).with_name("golden") / "registry-1"


def build(root: Path) -> Registry:
    """Make the registry that the golden folder holds."""
    clock = ManualClock()
    registry = Registry(root, clock=clock)
    first = {
        "by": "ana",
        "parameters": {
            "type": "object",
            "properties": {"limit": {"type": "number", "default": 1e-05}},
            "required": ["limit"],
        },
        "results": ["verdict"],
        "policy_digest": "sha256:" + "1" * 64,
        "evaluation_digest": "sha256:" + "2" * 64,
        "notebook_digest": "sha256:" + "3" * 64,
        "git_commit": "0123456789abcdef",
        "environment": {"python": "3.11", "lock": "sha256:" + "4" * 64},
        "timeouts": {"run_s": 600, "cell_s": 59.5},
        "extra": {"note": "Grüße\u2028\U0001f600 \\U0001f600 \x7f"},
    }
    registry.seal("review", {"notes.md": b"# Review\n", "evidence.json": b"{}"}, first)
    clock.advance(seconds=60.5)
    registry.seal("review", {"data.bin": b"\x00\xff\r\n"}, {"by": "ben"})
    registry.set_alias("review", "production", 1, by="ana")
    clock.advance(seconds=1)
    registry.set_alias("review", "production", 2, by="ben", expected=1)
    registry.rollback("review", by="ana")
    registry.record("approval.given", {"subject": "review@1", "text": "ok\n\x1b"}, by="cleo")
    return registry


def contents(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file() and ".locks" not in p.parts)
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def test_golden_registry_is_read() -> None:
    """Today's code finds nothing wrong with it and reads what it says."""
    registry = Registry(GOLDEN)
    assert registry.verify() == []
    found = registry.resolve("review")
    assert found.number == 1
    assert found.manifest.timeouts == {"run_s": 600, "cell_s": 59.5}
    assert found.manifest.parameters["properties"]["limit"]["default"] == 1e-05
    assert found.manifest.extra["note"] == "Grüße\u2028\U0001f600 \\U0001f600 \x7f"
    assert registry.load("review@2") == {"data.bin": b"\x00\xff\r\n"}
    assert [m.kind for m in registry.alias_history("review")] == ["set", "set", "rollback"]
    assert list(registry.audit())[-1].body == {"subject": "review@1", "text": "ok\n\x1b"}


def test_today_writes_the_same_bytes(tmp_path: Path) -> None:
    """A change of a byte is a new format and needs a new number."""
    build(tmp_path / "r")
    assert contents(tmp_path / "r") == contents(GOLDEN)


def test_golden_formats_say_which_they_are() -> None:
    """Each format names itself."""
    files = contents(GOLDEN)
    assert files["jobs/review/1/job.yaml"].startswith(b'schema: "job/1"\n')
    assert b'"schema": "aliases/1"' in files["jobs/review/aliases.json"]
    assert re.match(rb'\{"at":"[^"]*","body":\{"format":"audit/1"\}', files["log/audit.jsonl"])
