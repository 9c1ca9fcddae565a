"""The one door: every outside act of a notebook is decided, executed and recorded here.

Rules
-----
* Order: identify → replay? → authorize → reserve budget → record intent → provider → validate →
  record outcome → settle.  A later step never starts before the earlier one is durable.
* No intent recorded, no call (the ledger fails closed).  No outcome recorded, no answer.
* A request that comes twice (same ``request_id``) is one call.  A call that is recorded is
  answered from the ledger, except in a sandbox session, where a person asking again means again.
* An intent without an outcome is *in doubt*: ``read`` calls are repeated, ``write`` calls are not.
* The kernel is never believed about who it is: the token says, and the ledger knows the rest.
* Provider keys live in this process only.
* What MLflow shows comes from the ledger, later; MLflow being down never stops a call.

Known limit: this process trusts every process of the same user that can open the socket folder
(mode 0700) and holds a token; checks of peer credentials come with production isolation.
"""

from __future__ import annotations

from toolkit.gateway.app import build_app
from toolkit.gateway.door import Door
from toolkit.gateway.governance import Governance
from toolkit.gateway.identity import Identity
from toolkit.gateway.server import GatewayRecord, read_record, serve, stop_gateway

__all__ = [
    "Door",
    "GatewayRecord",
    "Governance",
    "Identity",
    "build_app",
    "read_record",
    "serve",
    "stop_gateway",
]
