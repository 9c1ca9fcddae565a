"""The one door: every outside act of a notebook is decided, executed and recorded here.

Rules
-----
* Order: identify → cut secrets out → replay? → label arguments → authorize → reserve → stop switch
  → record intent → ask a person? → execute → validate → cut secrets out → record outcome → settle.
  A later step never starts before the earlier one is committed, and on disk unless the call only
  reads: then intent and outcome reach the disk together, before the answer (decisions/0012).
* No secret that was found passes the first step: neither providers nor the ledger see it.
* Whoever answers, the answer gets labels, and they are looked for in every later argument.
* No intent recorded, no call (the ledger fails closed).  No outcome recorded, no answer.
* A request that comes twice (same ``request_id``) is one call.  A call that is recorded is
  answered from the ledger, except in a sandbox session, where a person asking again means again.
* An intent without an outcome is *in doubt*: ``read`` calls are repeated, ``write`` calls only if
  they are idempotent; about the others a person is asked, at most once for each attempt.
* A repetition is decided, stopped and reserved like a new call, and recorded as a restart.
* A model call goes to targets that policy allows, or that the person who was asked has seen; a target
  that policy asks about is no fallback.  After a stop no further attempt is made.
* A kernel tells the outcome of its own tools and agents only, once they were allowed and have begun.
* An attempt that asks for another write than before, while recorded writes are left, is stopped.
* A replay is answered from its journal, whatever policy, budget and catalogs say today.
* The kernel is never believed about who it is: the token says, and the ledger knows the rest.
* Provider keys live in this process only.
* What MLflow shows comes from the ledger, later; MLflow being down never stops a call.

* Over the unix socket only the gateway's own user (and root) is heard: the kernel's word on the
  peer (``SO_PEERCRED``), not the caller's.  Over TCP a session needs a team token.
* A call that a person has to decide about holds nothing while it waits: it is answered
  ``ApprovalPending``, and the same call goes on once it is decided, exactly once.
* In production of a signed registry a decision that lets a call go on counts by the signature that
  is kept with it, verified again each time it is relied on; the ledger's word alone lets nothing in.
* A job that a notebook runs is a run of its own, whose id follows from the call: started once, ended
  with its parent, counted in the budgets of all runs above it.
* SDKs of others have doors of their own (``doors``), behind which there is the same door.

Known limit: every process of the same user that holds a token is believed to be its run; a kernel
that may not share a user with others needs production isolation.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.gateway.app import Handler, build_app
    from toolkit.gateway.approvals import Approvals, Question
    from toolkit.gateway.asked import approval_reply, approved_change, as_approved
    from toolkit.gateway.data import DataDoor
    from toolkit.gateway.desk import Answer, Choice, Desk, Roles, due_us
    from toolkit.gateway.door import Door
    from toolkit.gateway.flow import Flow
    from toolkit.gateway.governance import Governance
    from toolkit.gateway.identity import Identity
    from toolkit.gateway.jobs import JobDoor
    from toolkit.gateway.journaled import JournalDoor
    from toolkit.gateway.listeners import TeamAddress
    from toolkit.gateway.mcp_door import McpDoor
    from toolkit.gateway.proofs import Claim, Proofs
    from toolkit.gateway.recall import Recall
    from toolkit.gateway.remote import RemoteTools
    from toolkit.gateway.screening import Screen
    from toolkit.gateway.server import GatewayRecord, read_record, serve, stop_gateway
    from toolkit.gateway.team import TeamToken, TeamTokens
    from toolkit.gateway.webhooks import Webhooks
    from toolkit.gateway.work import Facts

__all__ = [
    "Answer",
    "Approvals",
    "Choice",
    "Claim",
    "DataDoor",
    "Desk",
    "Door",
    "Facts",
    "Flow",
    "GatewayRecord",
    "Governance",
    "Handler",
    "Identity",
    "JobDoor",
    "JournalDoor",
    "McpDoor",
    "Proofs",
    "Question",
    "Recall",
    "RemoteTools",
    "Roles",
    "Screen",
    "TeamAddress",
    "TeamToken",
    "TeamTokens",
    "Webhooks",
    "approval_reply",
    "approved_change",
    "as_approved",
    "build_app",
    "due_us",
    "read_record",
    "serve",
    "stop_gateway",
]

_HOMES = {
    "Answer": "desk",
    "Approvals": "approvals",
    "Choice": "desk",
    "Claim": "proofs",
    "DataDoor": "data",
    "Desk": "desk",
    "Door": "door",
    "Facts": "work",
    "Flow": "flow",
    "GatewayRecord": "server",
    "Governance": "governance",
    "Handler": "app",
    "Identity": "identity",
    "JobDoor": "jobs",
    "JournalDoor": "journaled",
    "McpDoor": "mcp_door",
    "Proofs": "proofs",
    "Question": "approvals",
    "Recall": "recall",
    "RemoteTools": "remote",
    "Roles": "desk",
    "Screen": "screening",
    "TeamAddress": "listeners",
    "TeamToken": "team",
    "TeamTokens": "team",
    "Webhooks": "webhooks",
    "approval_reply": "asked",
    "approved_change": "asked",
    "as_approved": "asked",
    "build_app": "app",
    "due_us": "desk",
    "read_record": "server",
    "serve": "server",
    "stop_gateway": "server",
}


def __getattr__(name: str) -> Any:
    """Load what a command asks for: most need no server, no doors and no provider (PEP 562)."""
    if name not in _HOMES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
