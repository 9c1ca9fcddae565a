"""papermill, nbclient, jupyter_client and pyzmq, loaded without what the runner never uses.

Three optional imports of theirs cost half of the start-up time: jsonschema's URI grammar
(a format check that notebooks do not use), pyarrow's Hadoop file system and boto3 (papermill's
``hdfs://`` and ``s3://`` paths; the runner hands over notebooks in memory).  The vendors expect that
these imports may fail, so they are made to fail here, and only while they load.
"""

from __future__ import annotations

from toolkit.settings import SCHEMA_FORMATS, absent

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


with absent(*SCHEMA_FORMATS, "pyarrow.fs", "boto3"):
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
