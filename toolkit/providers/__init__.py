"""Who does a model's work: OpenAI-compatible servers, Anthropic, a local model, a script.

Rules
-----
* Requests and answers have one shape (OpenAI's chat completions); providers translate.
* ``Providers.complete`` is the only way in; one attempt per call.
* A vendor's failure becomes a ``ProviderError`` in ``failures.py`` and nowhere else; it holds no
  key, no header, and no body as it came.
* An answer to a schema fits the schema, or is an ``InvalidAnswer`` that names the first reason.
* Keys are read from the environment that the caller hands in, never from a file.
* Unknown prices are ``None``; reported usage is believed, missing usage is counted at its bound.
* Nothing is loaded before it is needed: the local model, the price table, the schema checker.
"""

from __future__ import annotations

from toolkit.providers.catalog import Catalog, ProviderSettings
from toolkit.providers.local import LocalProvider
from toolkit.providers.prices import price, worst_case
from toolkit.providers.providers import Providers
from toolkit.providers.scripted import ScriptedAnswer, ScriptedProvider
from toolkit.providers.types import ModelAnswer, ModelRequest, Provider, Route, RoutePrice

__all__ = [
    "Catalog",
    "LocalProvider",
    "ModelAnswer",
    "ModelRequest",
    "Provider",
    "ProviderSettings",
    "Providers",
    "Route",
    "RoutePrice",
    "ScriptedAnswer",
    "ScriptedProvider",
    "price",
    "worst_case",
]
