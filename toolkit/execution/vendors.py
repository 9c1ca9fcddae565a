"""papermill, nbclient, jupyter_client and pyzmq, loaded without what the runner never uses.

Two optional imports of theirs cost a third of the start-up time: jsonschema's URI grammar
(a format check that notebooks do not use) and pyarrow's Hadoop file system (papermill's
``hdfs://`` paths; the runner hands over notebooks in memory).  Both vendors expect that the
import may fail, so it is made to fail here, and only while they load.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = [
    "MAXMSGSIZE",
    "RECONNECT_IVL",
    "AsyncKernelClient",
    "AsyncKernelManager",
    "CellExecutionError",
    "CellTimeoutError",
    "Context",
    "DeadKernelError",
    "KernelSpecManager",
    "NBClientEngine",
    "NotebookExecutionManager",
    "PapermillNotebookClient",
    "execute_notebook",
    "nbformat",
    "papermill_engines",
    "recv_monitor_message",
    "run_sync",
]


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    missing = [name for name in names if name not in sys.modules]
    blocked: dict[str, ModuleType | None] = dict.fromkeys(missing)
    sys.modules.update(blocked)  # type: ignore[arg-type]  # None is how Python spells "absent"
    try:
        yield
    finally:
        for name in missing:
            sys.modules.pop(name, None)


with _absent("rfc3987_syntax", "pyarrow.fs"):
    import nbformat
    from jupyter_client.asynchronous import AsyncKernelClient
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
    from nbclient.util import run_sync
    from papermill import execute_notebook
    from papermill.clientwrap import PapermillNotebookClient
    from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines
    from zmq import MAXMSGSIZE, RECONNECT_IVL
    from zmq.asyncio import Context
    from zmq.utils.monitor import recv_monitor_message
