"""What is looked at before a run is recorded: its parameters, and the files that its calls need."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.app.own_secrets import OwnSecrets
from toolkit.errors import NotFound, UsageError
from toolkit.gateway import Governance
from toolkit.privacy import Category, Detector, Redactor

__all__ = ["check_files", "check_values"]


def check_files(governance: Governance) -> None:
    """Refuse a run whose calls would meet a broken file: nothing is recorded, its id is still good.

    A file that is not there is left to the calls that need it.

    Args:
        governance: Whose registry holds ``models.yaml``, ``people.yaml`` and ``data.yaml``; the
            tool catalog is read with the policy.

    Raises:
        InvalidFile: One has faults (all of that file are named).
    """
    with contextlib.suppress(NotFound):
        governance.catalog()
    governance.people()
    path = governance.registry / "data.yaml"
    if path.exists():
        from toolkit.sources import DataCatalog

        DataCatalog.load(path)


def check_values(parameters: Mapping[str, Any], registry: Path) -> None:
    """Refuse parameters that hold a secret, before anything is recorded.

    Refused and not cut out: the kernel would get the value all the same, in a cell of the executed
    notebook, and a run that goes on from its record would get something else.

    Args:
        parameters: JSON values by name.
        registry: Names the variables of the environment that are credentials.

    Raises:
        UsageError: There is one; every such parameter is named, and no value is.
    """
    known = OwnSecrets(os.environ, registry)()
    redacted = Redactor(Detector(), known, salt="parameters").redact(dict(parameters))
    found = {spot.top: spot.kind for spot in redacted.findings if spot.category is Category.SECRET}
    if not found:
        return
    what = ", ".join(f"{name} ({found[name]})" for name in parameters if name in found)
    raise UsageError(
        f"parameters hold what looks like a secret: {what or 'a name'}",
        where="parameters",
        next_step="parameters are recorded: let the gateway hold the credential (data.yaml, tools.yaml)",
    )
