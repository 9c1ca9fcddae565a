"""Tools that others offer (MCP servers, HTTP services), called by the gateway for this kernel."""

from __future__ import annotations

import asyncio
from typing import Any

from toolkit.client import approvals, wire
from toolkit.client.codec import encode
from toolkit.client.connection import current
from toolkit.errors import error_from_json
from toolkit.values import CallKind

__all__ = ["RemoteTool", "remote"]


class RemoteTool:
    """A tool of ``registry/tools.yaml`` that runs elsewhere; see :func:`remote`."""

    def __init__(self, name: str) -> None:
        self.name = name
        # Models' functions may not have a dot in their names.
        self.__toolkit_name__ = name.replace(".", "-")
        self.__toolkit_kind__ = CallKind.TOOL
        self.__name__ = self.__toolkit_name__
        self._described: dict[str, Any] | None = None

    def __call__(self, /, **arguments: Any) -> Any:
        """Call the tool and return its answer as JSON values.

        Raises:
            CallDenied, BudgetExceeded: Policy or budget said no.
            CallInDoubt: A write whose end nobody knows; a person decides.
            NotFound: The tool is not listed.
            ToolFailed: The tool, or its server, failed.
            UsageError: The arguments do not fit.
        """
        connection = current()
        given = {name: encode(value, f"{self.name}({name})") for name, value in arguments.items()}
        request = connection.identify(CallKind.TOOL, self.name, given)
        reply = approvals.call(connection, wire.TOOL, request)
        connection.announce(reply, CallKind.TOOL, self.name)
        outcome = reply["outcome"]
        if outcome["state"] != "ok":
            raise error_from_json(outcome["error"] or {})
        return outcome["answer"]

    async def acall(self, /, **arguments: Any) -> Any:
        """Call the tool without blocking the event loop; see :meth:`__call__`."""
        return await asyncio.to_thread(self, **arguments)

    def schema(self) -> dict[str, Any]:
        """Return the OpenAI-shaped definition, in the words of the server.

        Raises:
            NotFound, CallDenied, ToolFailed: The gateway cannot describe it.
        """
        told = self._describe()
        return {
            "type": "function",
            "function": {
                "name": self.__toolkit_name__,
                "description": told["description"],
                "parameters": told["parameters"],
            },
        }

    def _describe(self) -> dict[str, Any]:
        if self._described is None:
            reply = current().query(wire.TOOLS, {"names": [self.name]})
            if reply["faults"]:
                raise error_from_json(reply["faults"][0]["error"])
            self._described = reply["tools"][0]
        return self._described

    def __repr__(self) -> str:
        return f"toolkit.remote({self.name!r})"


def remote(name: str) -> RemoteTool:
    """Return a tool that an MCP server or an HTTP service offers.

    The tool is a callable with named arguments, and can stand in ``toolkit.model(tools=[…])``
    beside ``@tool`` functions::

        find = toolkit.remote("crm.findCustomer")
        customer = find(email="ana@example.org")

    Args:
        name: ``server.tool``, as ``registry/tools.yaml`` lists it.  Nothing is asked before the
            first call.
    """
    return RemoteTool(name)
