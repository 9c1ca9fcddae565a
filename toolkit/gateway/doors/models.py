"""Which route a model's name means, and the list of them: ``GET /v1/models``."""

from __future__ import annotations

from typing import Any

from toolkit.errors import NotFound
from toolkit.gateway.governance import Governance
from toolkit.providers import Route

__all__ = ["anthropic_models", "find_route", "openai_models"]

_OWNER = "toolkit"


def find_route(governance: Governance, model: str) -> Route:
    """Return the route that a model's name means.

    A route's name means itself, ``default`` the default route; a vendor's name (``gpt-4o-mini``)
    means the one route that leads to this model.

    Raises:
        NotFound: No route, or more than one, leads there; the message lists the routes.
    """
    catalog = governance.catalog()
    if model == "default" or model in catalog.routes:
        return governance.route(model)
    leading = [
        name
        for name, route in sorted(catalog.routes.items())
        if model in {target.model for target, _ in route.legs()}
    ]
    if len(leading) == 1:
        return governance.route(leading[0])
    known = ", ".join(sorted(catalog.routes))
    which = f"{len(leading)} routes lead to it ({', '.join(leading)})" if leading else "no route"
    raise NotFound(
        f"the model {model[:100]!a} is not offered here: {which}; the routes are {known}",
        where="model",
        next_step=f"name one of {known} as the model, or add a route to registry/models.yaml",
    )


def openai_models(governance: Governance, only: str | None = None) -> dict[str, Any]:
    """Return the routes as OpenAI lists models; one of them with ``only``."""
    found = [
        {"id": route.name, "object": "model", "created": 0, "owned_by": _OWNER}
        for route in _routes(governance, only)
    ]
    return found[0] if only is not None else {"object": "list", "data": found}


def anthropic_models(governance: Governance, only: str | None = None) -> dict[str, Any]:
    """Return the routes as Anthropic lists models; one of them with ``only``."""
    found = [
        {
            "type": "model",
            "id": route.name,
            "display_name": f"{route.name} ({route.target})",
            "created_at": "1970-01-01T00:00:00Z",
        }
        for route in _routes(governance, only)
    ]
    if only is not None:
        return found[0]
    names = [one["id"] for one in found]
    ends = {"first_id": names[0] if names else None, "last_id": names[-1] if names else None}
    return {"data": found, "has_more": False, **ends}


def _routes(governance: Governance, only: str | None) -> list[Route]:
    if only is not None:
        return [find_route(governance, only)]
    return [route for _, route in sorted(governance.catalog().routes.items())]
