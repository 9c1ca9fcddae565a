"""An evaluation set of four capitals, notebooks about them, and a person who promotes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli_world import Cell, Done, toolkit, write_notebook

from toolkit.ledger import Ledger
from toolkit.registry import AuditRecord, Registry
from toolkit.settings import Workspace

LABELS = {"France": "label-paris-81f3", "Spain": "label-madrid-5c0a", "Italy": "label-rome-e77d", "Peru": "label-lima-2b9e"}  # fmt: skip

SCRIPT = f"""
answers:
  - when: {{contains: France}}
    text: {LABELS["France"]}
  - when: {{contains: Spain}}
    text: {LABELS["Spain"]}
  - when: {{contains: Italy}}
    text: {LABELS["Italy"]}
  - text: "I do not know"
    input_tokens: 7
    output_tokens: 3
"""

SET = """
schema: evaluation/1
name: capitals
description: Countries and what stands for their capitals.
agent: answer
parameters: {questions: []}
cases: cases.jsonl
scorers:
  - {name: correct, kind: exact}
"""

PARAMETERS = 'questions: list[str] = ["France", "Chile"]  # what is asked'
AGENT = """@toolkit.agent
def answer(question: str) -> str:
    \"\"\"What stands for the capital of a country.\"\"\"
    return toolkit.model(question).text"""
REST = (
    "answers = [answer(question) for question in questions]\nprint(len(answers), 'answers')",
    "toolkit.result(count=len(answers))",
)


@dataclass
class Desk:
    """A person who promotes notebooks, and the records of what came of it."""

    workspace: Workspace

    def write(self, name: str, *cells: Cell) -> Path:
        """Write a notebook; without cells: the one that passes."""
        return write_notebook(
            self.workspace, name, *(cells or (AGENT, *REST)), parameters=PARAMETERS
        )

    def try_out(self, path: Path) -> None:
        """Run it in the sandbox and save its outputs: what a promotion starts from."""
        done = toolkit("run", path, "--save", "--json")
        assert done.code == 0, done.out

    def promote(self, path: Path, *options: str) -> Done:
        """Offer it to the gate; the answer is one JSON document."""
        return toolkit("promote", path, "--evaluate", "capitals", *options, "--json")

    def stage(self, done: Done, name: str) -> dict[str, Any]:
        return next(stage for stage in done.json["stages"] if stage["name"] == name)

    def rules(self, done: Done, name: str) -> set[str]:
        """Rules of one stage's errors."""
        return {f["rule"] for f in self.stage(done, name)["findings"] if f["severity"] == "error"}

    @property
    def registry(self) -> Registry:
        return Registry(self.workspace.registry)

    def audit(self, job: str) -> list[AuditRecord]:
        """What the audit log keeps of a job's promotions."""
        return [
            record
            for record in self.registry.audit()
            if record.event.startswith("promotion.") and record.body["job"] == job
        ]

    def executed(self) -> list[str]:
        """Ids of all runs that the ledger knows."""
        ledger = Ledger.open(self.workspace.database_url)
        try:
            return [run.run_id for run in ledger.runs(limit=1000)]
        finally:
            ledger.close()
