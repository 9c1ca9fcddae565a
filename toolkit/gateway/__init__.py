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

* Over the unix socket only the gateway's own user (and root) is heard: the kernel's word on the
  peer (``SO_PEERCRED``), not the caller's.  Over TCP a session needs a team token.
* SDKs of others have doors of their own (``doors``), behind which there is the same door.

Known limit: every process of the same user that holds a token is believed to be its run; a kernel
that may not share a user with others needs production isolation.
"""

from __future__ import annotations

from toolkit.gateway.app import build_app
from toolkit.gateway.door import Door
from toolkit.gateway.governance import Governance
from toolkit.gateway.identity import Identity
from toolkit.gateway.listeners import TeamAddress
from toolkit.gateway.server import GatewayRecord, read_record, serve, stop_gateway
from toolkit.gateway.team import TeamToken, TeamTokens

__all__ = [
    "Door",
    "GatewayRecord",
    "Governance",
    "Identity",
    "TeamAddress",
    "TeamToken",
    "TeamTokens",
    "build_app",
    "read_record",
    "serve",
    "stop_gateway",
]
