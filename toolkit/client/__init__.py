"""The kernel side: what a notebook uses to reach the outside, all of it through the gateway.

Rules
-----
* Importing costs next to nothing: the connection loads at the first call, httpx where the gateway is
  a team's, pydantic when a schema is used.
* Nothing is decided here.  The gateway decides, executes and records; this side asks and shows.
* A call's key is made from (parent, kind, name, arguments digest, occurrence), never from a
  position, so concurrent calls find their records whatever their order.
* A recorded answer is returned in the same type as a fresh one.
* A request without an answer is repeated with its ``request_id``; the gateway makes that safe.
"""

from __future__ import annotations

from toolkit.client import wire
from toolkit.client.approvals import Waiting
from toolkit.client.connection import CallEvent, Connection, connect, current, disconnect
from toolkit.client.data import DataSource, DataWarning, data
from toolkit.client.environment import (
    gateway_address,
    outer_environment,
    sdk_environment,
    sdk_headers,
)
from toolkit.client.frames import Counters
from toolkit.client.functions import agent, governed_schema, tool
from toolkit.client.installs import guard_installs, is_install
from toolkit.client.jobs import Job, JobResult, JobTool, job
from toolkit.client.journaled import idempotency_key, now, random, uuid
from toolkit.client.labels import OPENED, guard_labels, is_label_file
from toolkit.client.launch import ensure_gateway, workspace_root
from toolkit.client.models import ModelReply, model
from toolkit.client.purposes import purpose
from toolkit.client.remote import RemoteTool, remote
from toolkit.client.results import parameters, result
from toolkit.client.serving import serve_cases

__all__ = [
    "OPENED",
    "CallEvent",
    "Connection",
    "Counters",
    "DataSource",
    "DataWarning",
    "Job",
    "JobResult",
    "JobTool",
    "ModelReply",
    "RemoteTool",
    "Waiting",
    "agent",
    "connect",
    "current",
    "data",
    "disconnect",
    "ensure_gateway",
    "gateway_address",
    "governed_schema",
    "guard_installs",
    "guard_labels",
    "idempotency_key",
    "is_install",
    "is_label_file",
    "job",
    "model",
    "now",
    "outer_environment",
    "parameters",
    "purpose",
    "random",
    "remote",
    "result",
    "sdk_environment",
    "sdk_headers",
    "serve_cases",
    "tool",
    "uuid",
    "wire",
    "workspace_root",
]
