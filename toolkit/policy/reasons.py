"""Why a call is not allowed, in sentences for the person or model that made it."""

from __future__ import annotations

from toolkit.policy.engine import Ruling
from toolkit.policy.schema import ACTIONS, action_named
from toolkit.policy.tools import ToolCatalog
from toolkit.policy.types import PolicyRequest
from toolkit.values import Environment

__all__ = ["reasons_of"]


def reasons_of(
    environment: Environment,
    folder: str,
    tools: ToolCatalog,
    request: PolicyRequest,
    ruling: Ruling,
) -> tuple[str, ...]:
    """Return the reasons: the policies' own first, in the order of the files."""
    if ruling.misfits:
        return tuple(f"{request.resource}: {misfit}" for misfit in ruling.misfits)
    if ruling.failures:
        return tuple(
            f"policy could not be evaluated, so the call is denied: {failure}"
            for failure in ruling.failures
        )
    if not ruling.policies:
        return (_nothing_permits(environment, folder, tools, request),)
    own = [policy.reason for policy in ruling.policies if policy.reason]
    rest = [
        f"policy {policy.id} ({policy.place}) "
        + (f"asks {policy.ask} about it" if ruling.ask else "forbids it")
        for policy in ruling.policies
        if not policy.reason
    ]
    return (*own, *rest)


def _nothing_permits(
    environment: Environment, folder: str, tools: ToolCatalog, request: PolicyRequest
) -> str:
    action = action_named(request.action) or request.action
    name = request.resource.replace("\\", "\\\\").replace('"', '\\"')
    entity = f'{ACTIONS[action]}::"{name}"'
    unlisted = action == "call_tool" and request.resource not in tools
    hint = ", which registry/tools.yaml does not list," if unlisted else ""
    return (
        f"no policy of {environment} permits {action} on {entity}{hint} for "
        f"{request.user}; to allow it, add to registry/policies/{folder}/*.cedar: "
        f'@id("…") permit(principal, action == Action::"{action}", resource == {entity});'
    )
