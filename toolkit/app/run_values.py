"""No secret among the parameters of a run: they are written to the ledger, the notebook and MLflow."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.app.own_secrets import OwnSecrets
from toolkit.errors import UsageError
from toolkit.privacy import Category, Detector, Redactor

__all__ = ["check_values"]


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
