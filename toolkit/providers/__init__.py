"""Who does a model's work: OpenAI-compatible servers, Anthropic, a local model, a script.

Rules
-----
* Requests and answers have one shape (OpenAI's chat completions); providers translate.
* ``Providers.complete`` and ``Providers.embed`` are the only ways in.  A provider makes one attempt
  per call; the router alone makes more.
* A call is charged for every attempt that a provider may bill, and never for more than
  ``worst_case``: an attempt that could exceed it is not made.
* Nothing is asked again once a piece of an answer has been passed on.
* Every attempt has a reason, also where all of them failed.
* A vendor's failure becomes a ``ProviderError`` in ``failures.py`` and nowhere else; it holds no
  key, no header, and no body as it came.
* An answer to a schema fits the schema, or is an ``InvalidAnswer`` that names the first reason.
* What a request may hold is listed; what would escape the bound is refused by name.
* Keys are read from the environment that the caller hands in, never from a file.
* Unknown prices are ``None``; reported usage is believed, missing usage is counted at its bound.
* Time, waiting and chance are handed in.
* Nothing is loaded before it is needed: the local model, the price table, the schema checker.
"""

from __future__ import annotations

from toolkit.providers.answers import first_misfit
from toolkit.providers.attempts import attempts_of, charge_of
from toolkit.providers.catalog import Catalog, ProviderSettings
from toolkit.providers.choosing import embedding_legs, embedding_worst_case, worst_case
from toolkit.providers.local import LocalProvider
from toolkit.providers.prices import price
from toolkit.providers.providers import Providers
from toolkit.providers.retries import RetryBudget
from toolkit.providers.router import Router
from toolkit.providers.routes import Route, RoutePrice, Rules, Target, When
from toolkit.providers.scripted import ScriptedAnswer, ScriptedProvider
from toolkit.providers.types import (
    CallContext,
    Charge,
    Delta,
    EmbeddingAnswer,
    ModelAnswer,
    ModelRequest,
    OnDelta,
    Provider,
)

__all__ = [
    "CallContext",
    "Catalog",
    "Charge",
    "Delta",
    "EmbeddingAnswer",
    "LocalProvider",
    "ModelAnswer",
    "ModelRequest",
    "OnDelta",
    "Provider",
    "ProviderSettings",
    "Providers",
    "RetryBudget",
    "Route",
    "RoutePrice",
    "Router",
    "Rules",
    "ScriptedAnswer",
    "ScriptedProvider",
    "Target",
    "When",
    "attempts_of",
    "charge_of",
    "embedding_legs",
    "embedding_worst_case",
    "first_misfit",
    "price",
    "worst_case",
]
