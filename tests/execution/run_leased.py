"""A machine of its own, as far as names go: executes one run in a workspace and prints its ending."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from toolkit.app.workbench import open_workbench
from toolkit.errors import ToolkitError
from toolkit.execution import RunPlan
from toolkit.values import Environment, RunKind, RunRecord


def main() -> int:
    root, run_id, lease_s, notebook = sys.argv[1:]
    with open_workbench(Path(root)) as bench:
        bench.runner.lease_s = float(lease_s)
        record = RunRecord(run_id, RunKind.TRIAL, Environment.SANDBOX, "ana")
        try:
            report = bench.runner.run(RunPlan(record, Path(notebook).read_bytes()))
        except ToolkitError as error:
            print(json.dumps({"code": error.exit_code, "message": error.message}))
            return error.exit_code
        print(json.dumps({"code": 0, "state": report.run.state}))
        return 0


if __name__ == "__main__":
    sys.exit(main())
