"""What the evaluation tests share: a folder that holds a good set, and public answer doubles."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

SET: dict[str, Any] = {
    "schema": "evaluation/1",
    "name": "capitals",
    "agent": "answer",
    "parameters": {"limit": 0},
    "scorers": [
        {"name": "correct", "kind": "exact", "field": "city", "expected_field": "city"},
        {
            "name": "wrong_claims",
            "kind": "wrong_claim",
            "field": "city",
            "expected_field": "city",
            "abstentions": ["unsure"],
        },
    ],
}
CASES: list[dict[str, Any]] = [
    {"id": "fr", "inputs": {"country": "France"}, "expected": {"city": "Paris"}, "slice": "west"},
    {"id": "it", "inputs": {"country": "Italy"}, "expected": {"city": "Rome"}, "slice": "south"},
    {
        "id": "pt",
        "inputs": {"country": "Portugal"},
        "expected": {"city": "Lisbon"},
        "slice": "west",
    },
]


@dataclass(frozen=True)
class Answer:
    """A recorded answer, of the shape of the ledger's ``CaseAnswer``."""

    output: Any = None
    error: dict[str, Any] | None = None


@pytest.fixture
def write_set(tmp_path: Path) -> Callable[..., Path]:
    """Write a set; keywords replace members of ``set.yaml``, ``lines`` the lines of the cases."""

    def write(*, lines: list[Any] | None = None, header: str | None = None, **changed: Any) -> Path:
        folder = tmp_path / "capitals"
        folder.mkdir(exist_ok=True)
        values = {k: v for k, v in {**SET, **changed}.items() if v is not None}
        (folder / "set.yaml").write_text(header or yaml.safe_dump(values), "utf-8")
        chosen = CASES if lines is None else lines
        text = [line if isinstance(line, str) else json.dumps(line) for line in chosen]
        (folder / "cases.jsonl").write_text("\n".join(text) + "\n", "utf-8")
        return folder

    return write
