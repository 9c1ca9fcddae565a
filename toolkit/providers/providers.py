"""The providers of a catalog, built when they are first needed."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.errors import NotFound, ProviderError
from toolkit.providers.answers import check_answer, check_schema
from toolkit.providers.anthropic import VERSION, AnthropicProvider
from toolkit.providers.catalog import Catalog, ProviderSettings
from toolkit.providers.failures import httpx, missing_key
from toolkit.providers.local import LocalProvider
from toolkit.providers.openai import OpenAIProvider
from toolkit.providers.scripted import ScriptedProvider
from toolkit.providers.sender import Sender
from toolkit.providers.types import ModelAnswer, ModelRequest, Provider, Route

__all__ = ["Providers"]


class Providers:
    """Answers requests by route; used from one event loop.

    Args:
        catalog: The routes and providers.
        environ: Where keys are looked up; read when a provider is first used.
        transport: Takes the place of the network for HTTP providers, for tests.
        ready: Providers by name that are used as they are, for tests and embedding.
    """

    def __init__(
        self,
        catalog: Catalog,
        *,
        environ: Mapping[str, str],
        transport: httpx.AsyncBaseTransport | None = None,
        ready: Mapping[str, Provider] | None = None,
    ) -> None:
        self._catalog = catalog
        self._environ = environ
        self._transport = transport
        self._built: dict[str, Provider] = dict(ready or {})

    async def complete(self, route: Route, request: ModelRequest) -> ModelAnswer:
        """Answer one request.  Retries, fall-backs and breakers will be put in here.

        Raises:
            ProviderError: The provider failed; ``details["kind"]`` says how.
            InvalidAnswer: The answer does not fit the request's schema.
            UsageError: The request or its schema is not usable.
            InvalidFile, NotFound: A scripted provider's file has faults or is not there.
        """
        if request.schema is not None:
            check_schema(request.schema)
        answer = await self._provider(route).complete(route, request)
        return check_answer(route, request, answer)

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
