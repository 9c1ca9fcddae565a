"""The providers of a catalog, built when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.errors import InvalidAnswer, NotFound, ProviderError, ToolkitError, UsageError
from toolkit.providers.answers import check_schema
from toolkit.providers.anthropic import VERSION, AnthropicProvider
from toolkit.providers.attempts import Work, unasked
from toolkit.providers.catalog import Catalog, ProviderSettings
from toolkit.providers.choosing import eligible, embedding_legs, embedding_worst_case, worst_case
from toolkit.providers.failures import httpx, missing_key
from toolkit.providers.local import LocalProvider
from toolkit.providers.openai import OpenAIProvider
from toolkit.providers.prices import attempt_bound, price, text_bound
from toolkit.providers.router import Router
from toolkit.providers.scripted import ScriptedProvider
from toolkit.providers.sender import Sender
from toolkit.providers.types import (
    CallContext,
    EmbeddingAnswer,
    ModelAnswer,
    ModelRequest,
    OnDelta,
    Provider,
    Route,
)
from toolkit.providers.validation import deterministic, needs_person, validated, with_logprobs
from toolkit.values import Money, Usage

__all__ = ["Providers"]


class Providers:
    """Answers requests by route; used from one event loop.

    Args:
        catalog: The routes and providers.
        environ: Where keys are looked up; read when a provider is first used.
        transport: Takes the place of the network for HTTP providers, for tests.
        ready: Providers by name that are used as they are, for tests and embedding.
        router: Remembers which targets fail; default: a new one.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        environ: Mapping[str, str],
        transport: httpx.AsyncBaseTransport | None = None,
        ready: Mapping[str, Provider] | None = None,
        router: Router | None = None,
    ) -> None:
        self._catalog = catalog
        self._environ = environ
        self._transport = transport
        self._built: dict[str, Provider] = dict(ready or {})
        self._router = router or Router()

    async def complete(
        self,
        route: Route,
        request: ModelRequest,
        on_delta: OnDelta | None = None,
        *,
        context: CallContext | None = None,
    ) -> ModelAnswer:
        """Answer one request, by the route's targets and rules.

        Args:
            route: Where the call goes.
            request: The question.
            on_delta: Told each piece of the answer as it comes.  A piece cannot be taken back: an
                answer that turns out to be cut or not good enough ends in an error.
            context: What routing needs to know; default: nothing.

        Raises:
            ProviderError: The providers failed; ``details["kind"]`` says how.
            InvalidAnswer: No answer was good enough; ``details["kind"]`` is ``invalid_answer``,
                ``refusal``, ``low_confidence``, or ``needs_person`` where the route wants one.
            UsageError: The request or its schema is not usable, or no target takes it.
            InvalidFile, NotFound: A scripted provider's file has faults or is not there.

            The details of each have ``attempts``, ``usage`` and ``cost_nanos`` of the whole call
            (:func:`attempts_of`, :func:`charge_of`).
        """
        context = context or CallContext()
        try:
            if request.schema is not None:
                check_schema(request.schema)
            legs = eligible(route, request, context)
        except ToolkitError as error:
            raise unasked(error) from None

        async def ask(leg: Route, listen: OnDelta | None) -> ModelAnswer:
            asked = with_logprobs(leg, request)
            return validated(leg, asked, await self._ask(leg, asked, listen))

        def otherwise(problem: InvalidAnswer) -> ModelAnswer | InvalidAnswer | None:
            how = route.rules.validation.otherwise
            if how == "person":
                return needs_person(problem)
            return deterministic(route, request) if how.startswith("function:") else None

        work = Work(
            ask,
            lambda leg: attempt_bound(leg, request),
            lambda: worst_case(route, request, context),
            otherwise,
        )
        return await self._router.run(
            route, legs, work, on_delta=on_delta, retries=context.retries, halted=context.halted
        )

    async def embed(
        self, route: Route, texts: list[str], *, context: CallContext | None = None
    ) -> EmbeddingAnswer:
        """Return a vector for each text.

        Vectors of different models do not go together, so only targets with the model of the first
        one are asked, as far as they take the call; there is no hedging.

        Raises:
            ProviderError: The providers failed; ``details["kind"]`` says how.
            UsageError: There are no texts, no target takes them, or the provider has no embeddings.
        """
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
            problem = UsageError(
                "embeddings need a list of at least one text",
                where="the arguments of the embedding call",
                next_step="pass the texts as a list",
            )
            raise unasked(problem)

        def bound(leg: Route) -> tuple[Money | None, Usage]:
            usage = Usage(text_bound(texts))
            return price(leg.provider, leg.model, usage, route=leg), usage

        async def ask(leg: Route, _: OnDelta | None) -> EmbeddingAnswer:
            return await self._provider(leg).embed(leg, texts)

        work: Work[EmbeddingAnswer] = Work(
            ask, bound, lambda: embedding_worst_case(route, texts, context), lambda _: None
        )
        context = context or CallContext()
        try:
            legs = embedding_legs(route, texts, context)
        except ToolkitError as error:
            raise unasked(error) from None
        return await self._router.run(
            route, legs, work, retries=context.retries, halted=context.halted
        )

    async def _ask(
        self, leg: Route, request: ModelRequest, on_delta: OnDelta | None
    ) -> ModelAnswer:
        provider = self._provider(leg)
        if on_delta is None:
            return await provider.complete(leg, request)
        return await provider.complete(leg, request, on_delta)

    async def close(self) -> None:
        """Close every provider that was built."""
        built, self._built = list(self._built.values()), {}
        for provider in built:
            await provider.close()

    def _provider(self, route: Route) -> Provider:
        if route.provider not in self._built:
            settings = self._catalog.providers.get(route.provider)
            if settings is None:
                raise NotFound(
                    f"there is no provider {route.provider!a}",
                    where=f"{self._catalog.path}: providers",
                    next_step=f"add {route.provider} to {self._catalog.path.name}",
                )
            self._built[route.provider] = self._build(settings, route)
        return self._built[route.provider]

    def _build(self, settings: ProviderSettings, route: Route) -> Provider:
        folder = self._catalog.path.parent
        if settings.kind == "scripted":
            return ScriptedProvider.load(folder / (settings.script or ""))
        if settings.kind == "local":
            path = folder / settings.model_path if settings.model_path else None
            return LocalProvider(
                path,
                n_ctx=settings.n_ctx,
                cache_prompt=settings.cache_prompt,
                threads=settings.threads,
            )
        if settings.kind == "anthropic":
            return AnthropicProvider(self._sender(settings, route))
        return OpenAIProvider(
            self._sender(settings, route),
            max_tokens_field=settings.max_tokens_field,
            strict_schema=settings.strict_schema,
        )

    def _sender(self, settings: ProviderSettings, route: Route) -> Sender:
        headers = {"content-type": "application/json", "accept": "application/json"}
        key = self._key(settings, route)
        if settings.kind == "anthropic":
            headers["anthropic-version"] = VERSION
        if key is not None:
            name = "x-api-key" if settings.kind == "anthropic" else "authorization"
            headers[name] = key if settings.kind == "anthropic" else f"Bearer {key}"
        return Sender(
            settings.address,
            headers,
            key=key,
            proxy=settings.proxy,
            ca_file=self._environ.get("SSL_CERT_FILE"),
            transport=self._transport,
        )

    def _key(self, settings: ProviderSettings, route: Route) -> str | None:
        if settings.api_key_env is None:
            return None
        key = self._environ.get(settings.api_key_env, "").strip()
        problem: ProviderError | None = None
        if not key:
            problem = missing_key(settings.api_key_env, route)
        elif not all("!" <= char <= "~" for char in key):  # a header holds printable ASCII
            problem = missing_key(settings.api_key_env, route, malformed=True)
        if problem:
            raise problem
        return key
