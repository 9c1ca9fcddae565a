"""``python -m toolkit.tracing.counts ROOT``: compare the ledger with MLflow, as JSON.

Exit code 0: every call has its span; 1: some do not (yet); 75: a side cannot be read.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from toolkit.errors import ToolkitError
from toolkit.ledger import Ledger
from toolkit.settings import open_workspace
from toolkit.tracing.counting import compare_counts
from toolkit.tracing.store import MlflowStore

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Print the counts of a workspace and return the exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    try:
        workspace = open_workspace(Path(argv[0]) if argv else None)
        ledger = Ledger.open(workspace.database_url)
        try:
            store = MlflowStore(workspace.mlflow_uri, artifacts=workspace.artifacts)
            counts = compare_counts(ledger, store, experiment=workspace.settings.experiment)
            waiting = ledger.unshipped_count()
        finally:
            ledger.close()
    except ToolkitError as error:
        print(json.dumps(error.to_json()), file=sys.stderr)
        return error.exit_code
    body = {
        "calls": sum(count.calls for count in counts),
        "spans": sum(count.spans for count in counts),
        "unshipped": waiting,
        "different": [
            {"run": count.run_id, "calls": count.calls, "spans": count.spans}
            for count in counts
            if not count
        ],
    }
    print(json.dumps(body, indent=2))
    return 1 if body["different"] else 0


if __name__ == "__main__":
    sys.exit(main())
