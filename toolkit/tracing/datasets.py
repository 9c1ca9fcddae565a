"""MLflow's evaluation datasets, read as plain records.

Format: MLflow 3.17's ``EvaluationDataset``; a record has an id, inputs, and expectations (an object,
or nothing).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from toolkit.errors import NotFound, UsageError
from toolkit.tracing.store import MlflowStore
from toolkit.tracing.vendor import tracking_errors

__all__ = ["DatasetRecord", "read_dataset"]

_ID = re.compile(r"d-[0-9a-f]{32}")
_PAGE = 50


@dataclass(frozen=True, slots=True)
class DatasetRecord:
    """One record of a dataset.

    Attributes:
        record_id: MLflow's id of it.
        inputs: JSON values by name.
        expectations: JSON values by name; empty if it has none.
    """

    record_id: str
    inputs: dict[str, Any]
    expectations: dict[str, Any]


def read_dataset(store: MlflowStore, name: str) -> tuple[str, list[DatasetRecord]]:
    """Return the id and the records of a dataset.

    Args:
        store: MLflow's store.
        name: Name of the dataset, or its id (``d-…``).

    Raises:
        NotFound: There is none.
        UsageError: Several have the name.
        TrackingError: MLflow cannot be read.
    """
    dataset_id = name if _ID.fullmatch(name) else _only(name, _find(store, name))
    with tracking_errors(f"read the dataset {name}", store.uri):
        from mlflow.tracking._tracking_service.utils import _get_store

        # ``EvaluationDataset.records`` would ask the process's own tracking store, not this one.
        found, _ = _get_store(store.uri)._load_dataset_records(dataset_id, max_results=None)  # noqa: SLF001
        records = [
            DatasetRecord(r.dataset_record_id, dict(r.inputs or {}), dict(r.expectations or {}))
            for r in found
        ]
    return dataset_id, sorted(records, key=lambda record: record.record_id)


def _find(store: MlflowStore, name: str) -> list[str]:
    # Names are compared here, not by MLflow's filter, whose quoting a name could break.
    found: list[str] = []
    token = None
    with tracking_errors(f"look for the dataset {name}", store.uri):
        while True:
            page = store.client.search_datasets(max_results=_PAGE, page_token=token)
            found += [str(dataset.dataset_id) for dataset in page if dataset.name == name]
            token = page.token
            if not token:
                return found


def _only(name: str, found: list[str]) -> str:
    if not found:
        raise NotFound(
            f"MLflow has no dataset {name!r}",
            where=name,
            next_step="look at the Datasets page of the experiment, or give its id (d-…)",
        )
    if len(found) > 1:
        raise UsageError(
            f"MLflow has {len(found)} datasets named {name!r}: {', '.join(sorted(found))}",
            where=name,
            next_step="give the id of one",
        )
    return found[0]
