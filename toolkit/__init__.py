"""From an agent in a notebook to a governed, durable job.

In a notebook::

    %load_ext toolkit

    @toolkit.tool
    def read_order(number: int) -> dict: ...

    reply = toolkit.model("Summarise: …", route="default")
    toolkit.result(summary=reply.text)

Names load on first use, so that a kernel pays only for what it touches.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.client import (
        ModelReply,
        agent,
        connect,
        data,
        idempotency_key,
        job,
        model,
        now,
        parameters,
        purpose,
        random,
        remote,
        result,
        serve_cases,
        tool,
        uuid,
    )
    from toolkit.magics import load_ipython_extension, unload_ipython_extension

__version__ = "0.1.0"

__all__ = [
    "ModelReply",
    "__version__",
    "agent",
    "connect",
    "data",
    "idempotency_key",
    "job",
    "load_ipython_extension",
    "model",
    "now",
    "parameters",
    "purpose",
    "random",
    "remote",
    "result",
    "serve_cases",
    "tool",
    "unload_ipython_extension",
    "uuid",
]

_HOMES = {
    "load_ipython_extension": "toolkit.magics",
    "unload_ipython_extension": "toolkit.magics",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES.get(name, "toolkit.client")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
