"""Tools that others offer: MCP servers and HTTP services, reached from the gateway only.

Rules
-----
* What ``registry/tools.yaml`` does not list is not callable, whatever a server offers.
* A tool with a pinned digest is the one that a person read: when its server changes description
  or schema, it is refused until somebody approves it again.
* Secrets come from the gateway's environment, by name; they are in no file, argument, answer,
  error or log of ours.
* Only listed hosts are asked, at addresses that were checked when the connection was opened.
  Private networks and loopback are closed unless they are written down; where clouds keep
  credentials stays closed.  A redirect is a new request and is checked like one.
* Nobody waits for ever: start, call and end of a server have limits.  A server that died is
  started again at the next call, one that hangs is ended.
* A call whose end nobody knows is *in doubt*, unless it may be repeated.
* A server may not ask this process for anything: no model, no question to a person, no files.
* What comes back is a JSON value of bounded size; bytes become type, length and digest.
* This room owns the MCP SDK (``mcp``), and ``httpx2`` and ``httpcore2`` on which it stands.

Known limits: a server process whose gateway is killed (``kill -9``) sees its input end and is
expected to go.  A pipe's line has no limit of its own.  OpenAPI: JSON bodies only, no cookies, no
parameters described by ``content``.
"""

from __future__ import annotations

from toolkit.settings import AddressGuard, Resolver, system_resolver
from toolkit.tools.offers import Caller, Offer
from toolkit.tools.settings import RemoteFile
from toolkit.tools.toolbox import Listed, Toolbox

__all__ = [
    "AddressGuard",
    "Caller",
    "Listed",
    "Offer",
    "RemoteFile",
    "Resolver",
    "Toolbox",
    "system_resolver",
]
