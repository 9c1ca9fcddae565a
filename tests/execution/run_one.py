"""A runner in a process of its own: reads one execution as JSON, prints its ending as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from toolkit.execution import Execution, execute
from toolkit.values import Environment, RunKind, RunRecord


def main() -> None:
    spec = json.load(sys.stdin)
    ending = execute(
        Execution(
            run=RunRecord(spec["run_id"], RunKind.RUN, Environment.PRODUCTION, "ana"),
            ledger=spec["ledger"],
            notebook=spec["notebook"].encode(),
            parameters={},
            folder=Path(spec["folder"]),
            gateway_socket=None,
            token=spec["token"],
            timeout_s=spec.get("timeout_s", 60),
        )
    )
    print(json.dumps({"state": ending.state, "cause": ending.cause, "message": ending.message}))


if __name__ == "__main__":
    main()
