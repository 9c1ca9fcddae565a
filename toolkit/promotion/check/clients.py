"""Imports and settings that go around the gateway."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from toolkit.document import Cell
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_PROVIDERS = dict.fromkeys(
    [
        *("litellm", "cohere", "mistralai", "groq", "ollama", "together"),
        *("replicate", "fireworks", "ai21", "zhipuai", "dashscope", "xai_sdk", "voyageai"),
        *("google.genai", "google.generativeai", "vertexai", "google.cloud.aiplatform"),
        *("azure.ai.inference", "azure.ai.openai", "aleph_alpha_client", "ibm_watsonx_ai"),
        *("botocore", "boto3", "aioboto3", "huggingface_hub.InferenceClient", "portkey_ai"),
    ],
    "toolkit.model(…)",
)
_FRAMEWORKS = dict.fromkeys(
    [
        *("langchain", "langchain_core", "langchain_community", "langchain_openai", "langgraph"),
        *("langchain_anthropic", "llama_index", "crewai", "autogen", "autogen_agentchat", "ag2"),
        *("pydantic_ai", "smolagents", "dspy", "haystack", "semantic_kernel", "agno", "camel"),
        *("google.adk", "strands", "openai_agents", "instructor", "guidance", "marvin", "phi"),
    ],
    "@toolkit.agent with toolkit.model(…, tools=[…])",
)
_HTTP = dict.fromkeys(
    [
        *("requests", "httpx", "aiohttp", "urllib.request", "urllib3", "http.client", "httplib2"),
        *("socket", "ssl", "websockets", "websocket", "pycurl", "ftplib", "smtplib", "telnetlib"),
        *("paramiko", "grpc", "xmlrpc.client", "tornado.httpclient", "treq", "imaplib", "poplib"),
    ],
    "a function with @toolkit.tool whose tool is in the catalog",
)


# SDKs that read address and key from the environment, where a toolkit kernel has the gateway's.
_GOVERNED = frozenset(
    [
        *("openai", "anthropic", "pydantic_ai", "langchain", "langchain_openai"),
        *("langchain_anthropic", "langgraph", "openai_agents", "agents", "instructor"),
    ]
)
# What gives a client of theirs another address or key.
_SETTINGS = frozenset(
    [
        *("base_url", "api_key", "auth_token", "http_client", "http_async_client", "api_base"),
        *("openai_api_base", "openai_api_key", "openai_proxy", "azure_endpoint", "azure_ad_token"),
        *("anthropic_api_url", "anthropic_api_key", "websocket_base_url", "openai_client"),
    ]
)
_VARIABLE_PREFIXES = ("OPENAI_", "ANTHROPIC_", "AZURE_OPENAI_")
# Clients of theirs that never ask the environment for OpenAI's or Anthropic's address.
_OTHER_CLOUDS = ("Azure", "Bedrock", "Vertex", "Foundry")


def _imports(subject: Subject, table: Mapping[str, str]) -> Iterator[Hit]:
    allowed = subject.catalog.allowed_imports
    for cell in subject.code:
        seen: set[tuple[str, int]] = set()
        for dotted, line in subject.names.imports(cell):
            module = _listed(dotted, table)
            if module is None or (module, line) in seen or _listed(dotted, allowed):
                continue
            seen.add((module, line))
            yield Hit(f"{module} is imported", cell, line, f"use {table[module]} instead")


def _listed(dotted: str, table: Mapping[str, str] | frozenset[str]) -> str | None:
    """Return the entry that names the module or a package above it."""
    parts = dotted.split(".")
    for length in range(1, len(parts) + 1):
        prefix = ".".join(parts[:length])
        if prefix in table:
            return prefix
    return None


def _providers(subject: Subject) -> Iterator[Hit]:
    return _imports(subject, _PROVIDERS)


def _addresses(subject: Subject) -> Iterator[Hit]:
    """Clients, of notebooks that import such an SDK, that are led past the environment."""
    imported = {
        listed
        for cell in subject.code
        for dotted, _ in subject.names.imports(cell)
        if (listed := _listed(dotted, _GOVERNED))
        and not _listed(dotted, subject.catalog.allowed_imports)
    }
    if not imported:
        return
    for cell in subject.code:
        for node in subject.names.nodes(cell):
            if isinstance(node, ast.Call):
                yield from _settings(subject, cell, node)
            elif isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                yield from _assignment(subject, cell, node)


def _settings(subject: Subject, cell: Cell, call: ast.Call) -> Iterator[Hit]:
    given = {word.arg for word in call.keywords if word.arg and not _is_none(word.value)}
    dotted = subject.names.dotted(call.func)
    name = dotted.rpartition(".")[2]
    texts = [
        one.value
        for one in (*call.args, *(word.value for word in call.keywords))
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]
    if found := sorted(given & _SETTINGS):
        yield Hit(f"a client gets {', '.join(found)} from the code", cell, call.lineno)
    elif _listed(dotted, _GOVERNED) and any(cloud in name for cloud in _OTHER_CLOUDS):
        yield Hit(f"{name} leads to another cloud", cell, call.lineno)
    elif (
        dotted.startswith("os.")
        and name not in {"getenv", "get"}
        and any(text.startswith(_VARIABLE_PREFIXES) for text in texts)
    ):
        yield Hit("a variable that leads to the gateway is changed", cell, call.lineno)


def _assignment(
    subject: Subject, cell: Cell, node: ast.Assign | ast.AugAssign | ast.AnnAssign
) -> Iterator[Hit]:
    """``os.environ["OPENAI_BASE_URL"] = …`` and ``openai.base_url = …``."""
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, ast.Attribute) and target.attr in _SETTINGS:
            if _listed(subject.names.dotted(target), _GOVERNED):
                yield Hit(f"{target.attr} of an SDK is set", cell, node.lineno)
        elif isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
            key = target.slice.value
            environ = subject.names.dotted(target.value) == "os.environ"
            if environ and isinstance(key, str) and key.startswith(_VARIABLE_PREFIXES):
                yield Hit("a variable that leads to the gateway is changed", cell, node.lineno)


def _is_none(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is None


def _frameworks(subject: Subject) -> Iterator[Hit]:
    return _imports(subject, _FRAMEWORKS)


def _http(subject: Subject) -> Iterator[Hit]:
    return _imports(subject, _HTTP)


RULES = (
    Rule(
        "provider-client",
        Severity.ERROR,
        "nobody decided, budgeted or recorded it; a job's kernel has no provider key, and from"
        " isolation L2 on no network",
        "use toolkit.model(…) instead",
        _providers,
    ),
    Rule(
        "sdk-address",
        Severity.ERROR,
        "openai, anthropic and what is built on them find the gateway in the kernel's environment;"
        " a client with an address or key of its own goes around it; a job's kernel has no key for"
        " that, and from isolation L2 on no network",
        "leave out base_url, api_key and the like: OpenAI() and Anthropic() are governed as they"
        " are; name a route as the model",
        _addresses,
    ),
    Rule(
        "agent-framework",
        Severity.WARNING,
        "its calls of models go through the gateway where it uses openai or anthropic as they are;"
        " what its own tools do is neither decided nor recorded",
        "use @toolkit.agent with toolkit.model(…, tools=[…]) instead",
        _frameworks,
    ),
    Rule(
        "http-client",
        Severity.ERROR,
        "nobody decides or records it; from isolation L2 on a job's kernel reaches the gateway alone",
        "use a function with @toolkit.tool whose tool is in the catalog",
        _http,
    ),
)
