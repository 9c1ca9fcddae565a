"""What a version's evidence binds: every evaluation set, and the tools that it was judged with."""

from __future__ import annotations

from pathlib import Path

from toolkit.evaluation import EvaluationSet
from toolkit.policy import ToolCatalog
from toolkit.promotion.evidence import evaluation_digest
from toolkit.values import digest_json

SET = """
schema: evaluation/1
name: {name}
description: Questions.
agent: answer
parameters: {{}}
cases: cases.jsonl
scorers:
  - {{name: correct, kind: exact}}
"""


def _set(folder: Path, name: str, expected: str) -> EvaluationSet:
    place = folder / name
    place.mkdir(parents=True)
    (place / "set.yaml").write_text(SET.format(name=name))
    case = f'{{"id": "a", "inputs": {{"question": "?"}}, "expected": "{expected}"}}\n'
    (place / "cases.jsonl").write_text(case)
    return EvaluationSet.load(place)


def test_an_approval_binds_every_evaluation_set(tmp_path: Path) -> None:
    """A change of the second set changes the digest; their order does not."""
    first, second = _set(tmp_path / "1", "first", "x"), _set(tmp_path / "1", "second", "y")
    other = _set(tmp_path / "2", "second", "z")
    both = evaluation_digest([first, second])
    assert both == evaluation_digest([second, first])
    assert both != evaluation_digest([first, other])
    assert both not in {first.digest, second.digest}
    assert both == digest_json({"first": first.digest, "second": second.digest})


def test_one_set_has_its_own_digest(tmp_path: Path) -> None:
    """As versions and approvals of before have it; without a set there is none."""
    only = _set(tmp_path, "only", "x")
    assert evaluation_digest([only]) == only.digest
    assert evaluation_digest([]) is None


def test_a_tool_manifest_tells_tools_apart_without_addresses(tmp_path: Path) -> None:
    """Every entry with the pinned digest of a remote tool; of servers only a digest."""
    text = """
tools:
  pay: {effect: write, description: Pays.}
servers:
  mail:
    command: [python, -m, secret_address]
    tools:
      send: {effect: write, digest: "sha256:%s"}
"""
    path = tmp_path / "tools.yaml"
    path.write_text(text % ("1" * 64))
    one = ToolCatalog.load(path)
    path.write_text(text % ("2" * 64))
    two = ToolCatalog.load(path)
    assert one.manifest()["tools"]["mail.send"]["pinned"] == "sha256:" + "1" * 64
    assert two.manifest()["tools"]["mail.send"]["pinned"] == "sha256:" + "2" * 64
    assert one.manifest()["tools"]["pay"] == two.manifest()["tools"]["pay"]
    assert "secret_address" not in str(one.manifest())
    assert one.manifest()["digest"] == one.digest != two.digest
