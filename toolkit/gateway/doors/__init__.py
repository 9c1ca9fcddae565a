"""Doors for other people's SDKs: OpenAI's and Anthropic's protocols in front of the one door.

Rules
-----
* Translate and nothing else: every request becomes the call that ``toolkit.model`` would have
  made, so policy, budgets, ledger and MLflow see one kind of call.
* What a protocol can say and the gateway cannot do is refused by name, never dropped in silence;
  bookkeeping that changes no answer (``metadata``, ``user``, cache hints) is not passed on.
* A request that an SDK sends again is one call, not two (see ``repeats``).
* Errors have the vendor's shape and the right status, and say whether to send again:
  ``x-should-retry``.  An error before the first byte is a status; after it, the vendor's event.
* A client that goes away stops nothing: the call ends, is recorded and paid for.
"""

from __future__ import annotations

from toolkit.gateway.doors.routes import Doors

__all__ = ["Doors"]
