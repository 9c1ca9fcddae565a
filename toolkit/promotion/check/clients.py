"""Imports that go around the gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_PROVIDERS = dict.fromkeys(
    [
        *("openai", "anthropic", "litellm", "cohere", "mistralai", "groq", "ollama", "together"),
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


def _frameworks(subject: Subject) -> Iterator[Hit]:
    return _imports(subject, _FRAMEWORKS)


def _http(subject: Subject) -> Iterator[Hit]:
    return _imports(subject, _HTTP)


RULES = (
    Rule(
        "provider-client",
        Severity.ERROR,
        "a job's kernel has no provider key and no network, so the call fails; and before that"
        " nobody decided, budgeted or recorded it",
        "use toolkit.model(…) instead",
        _providers,
    ),
    Rule(
        "agent-framework",
        Severity.WARNING,
        "a framework works only as far as its model and tool calls go through the gateway",
        "use @toolkit.agent with toolkit.model(…, tools=[…]) instead",
        _frameworks,
    ),
    Rule(
        "http-client",
        Severity.ERROR,
        "a job's kernel reaches nothing but the gateway",
        "use a function with @toolkit.tool whose tool is in the catalog",
        _http,
    ),
)
