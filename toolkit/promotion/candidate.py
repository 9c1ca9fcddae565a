"""What is being promoted, and the records of its runs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from toolkit.document import Notebook
from toolkit.policy import PolicyBundle
from toolkit.promotion.locking import Surroundings
from toolkit.values import Environment, RunKind, RunRecord, new_id

__all__ = ["Candidate"]

TOOLS_FILE = "tools.json"


@dataclass(frozen=True)
class Candidate:
    """What is being promoted.

    Attributes:
        job: The job's name.
        notebook: What was read; ``data`` the bytes that will be sealed and are executed here.
        name: Workspace-relative path.
        user: Who promotes.
        bundle: The production policy.
        parameters: Values for the rehearsal (defaults fill the rest).
        surroundings: The environment that it is tried, sealed and run in.
    """

    job: str
    notebook: Notebook
    data: bytes
    name: str
    user: str
    bundle: PolicyBundle
    parameters: dict[str, Any]
    surroundings: Surroundings

    @property
    def files(self) -> dict[str, bytes]:
        """What is sealed of it: notebook, lock, and the tool catalog that it was judged with."""
        tools = json.dumps(self.bundle.tools.manifest(), indent=1, sort_keys=True)
        return {
            "notebook.ipynb": self.data,
            **self.surroundings.files,
            TOOLS_FILE: f"{tools}\n".encode(),
        }

    def run(self, kind: RunKind, parameters: dict[str, Any], **facts: Any) -> RunRecord:
        """Return the record of a run of this candidate under the production policy."""
        return RunRecord(
            run_id=new_id(kind.value),
            kind=kind,
            environment=Environment.PRODUCTION,
            user=self.user,
            job=self.job,
            notebook=self.name,
            parameters=parameters,
            policy_digest=self.bundle.digest,
            **facts,
        )
