"""Names of span attributes: one table, one version string.

Source: the OpenTelemetry semantic conventions for generative AI (status *development*; the Python
package marks its own constants deprecated because the registry moved, so the names are kept here),
and MLflow 3.17 ``mlflow/tracing/constant.py`` for the ``mlflow.*`` attributes.
"""

from __future__ import annotations

from typing import Final

from toolkit.values import CallKind

__all__ = [
    "ATTEMPT",
    "ATTEMPT_SPAN_TYPE",
    "CHARS_ATTRIBUTE",
    "CHARS_NAME",
    "CHARS_QUERY",
    "CHARS_TAG",
    "CONVENTIONS_VERSION",
    "EMBEDDINGS",
    "EMBEDDING_SPAN_TYPE",
    "MOST_ATTEMPT_SPANS",
    "NOT_CALLS",
    "OPERATIONS",
    "SHARD_SPAN_TYPE",
    "SPAN_TYPES",
    "GenAi",
    "Guardrail",
    "Mlflow",
]

CONVENTIONS_VERSION: Final = "otel-genai-2026.2/mlflow-3.17"
"""Written on every span as ``toolkit.conventions``; change it with any name in this file."""

CHARS_NAME: Final = 200
"""Longest span or trace name that we write, characters."""

CHARS_TAG: Final = 250
"""Longest tag value that we write, characters (every MLflow backend takes 250)."""

CHARS_ATTRIBUTE: Final = 1_000
"""Longest error message or reason on a span, characters."""

CHARS_QUERY: Final = 4_000
"""Longest query text on a span, characters; the inputs have it to 64 KiB."""

MOST_ATTEMPT_SPANS: Final = 8
"""Most attempts of one call that are drawn as spans: the first ones and the last one.

A trace holds at most 200 *calls*, which the ledger counts when a call begins.  Attempts are known
when it has ended, so they come on top: up to eight per call that was tried again or failed.  All of
them, however many, are events of the call's own span.
"""


class GenAi:
    """Attributes of the OpenTelemetry GenAI conventions."""

    OPERATION = "gen_ai.operation.name"
    PROVIDER = "gen_ai.provider.name"
    CONVERSATION = "gen_ai.conversation.id"
    REQUEST_MODEL = "gen_ai.request.model"
    REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
    REQUEST_TEMPERATURE = "gen_ai.request.temperature"
    REQUEST_SEED = "gen_ai.request.seed"
    RESPONSE_MODEL = "gen_ai.response.model"
    RESPONSE_ID = "gen_ai.response.id"
    FINISH_REASONS = "gen_ai.response.finish_reasons"
    INPUT_TOKENS = "gen_ai.usage.input_tokens"
    OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
    CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
    TOOL_NAME = "gen_ai.tool.name"
    TOOL_CALL_ID = "gen_ai.tool.call.id"
    TOOL_TYPE = "gen_ai.tool.type"
    AGENT_NAME = "gen_ai.agent.name"
    WORKFLOW_NAME = "gen_ai.workflow.name"
    DATA_SOURCE = "gen_ai.data_source.id"
    QUERY_TEXT = "gen_ai.retrieval.query.text"
    DIMENSIONS = "gen_ai.embeddings.dimension.count"
    ERROR_TYPE = "error.type"


class Guardrail:
    """What the gateway decided, in the words of OpenTelemetry's draft for guardrails.

    The draft (``gen-ai-security.md``, ``gen_ai.guardrail.*``) is in no registry yet, so the names
    have our prefix until it is.  A verdict and an action that differ are the sandbox's warning, or
    a person who was asked.
    """

    TARGET = "toolkit.guardrail.target.subtype"  # llm, tool_call, retrieval … (always the input)
    VERDICT = "toolkit.guardrail.verdict.type"  # allow, warn, escalate, deny
    REASON = "toolkit.guardrail.verdict.reason"
    ACTION = "toolkit.guardrail.action.type"  # allow, block
    POLICY = "toolkit.guardrail.security.policy.id"


class Mlflow:
    """Attributes that MLflow's store and user interface read."""

    TRACE_ID = "mlflow.traceRequestId"
    SPAN_TYPE = "mlflow.spanType"
    INPUTS = "mlflow.spanInputs"
    OUTPUTS = "mlflow.spanOutputs"
    USAGE = "mlflow.chat.tokenUsage"
    COST = "mlflow.llm.cost"
    MODEL = "mlflow.llm.model"
    PROVIDER = "mlflow.llm.provider"
    FORMAT = "mlflow.message.format"
    SESSION = "session.id"
    USER = "user.id"
    TAG_PREFIX = "mlflow.traceTag."
    TRACE_NAME = "mlflow.traceTag.mlflow.traceName"


OPERATIONS: Final[dict[CallKind, str]] = {
    CallKind.MODEL: "chat",
    CallKind.TOOL: "execute_tool",
    CallKind.AGENT: "invoke_agent",
    CallKind.DATA: "retrieval",
    CallKind.JOB: "invoke_workflow",
    # The conventions have no name for these; the prefix keeps them ours.
    CallKind.HUMAN: "toolkit.ask_human",
    CallKind.RESULT: "toolkit.publish_result",
    CallKind.VALUE: "toolkit.make_value",
}

SPAN_TYPES: Final[dict[CallKind, str]] = {
    CallKind.MODEL: "CHAT_MODEL",
    CallKind.TOOL: "TOOL",
    CallKind.AGENT: "AGENT",
    CallKind.DATA: "RETRIEVER",
    CallKind.JOB: "WORKFLOW",
    CallKind.HUMAN: "HUMAN",
    CallKind.RESULT: "TASK",
    CallKind.VALUE: "TASK",
}

EMBEDDINGS: Final = "embeddings"
"""Operation of a model call whose arguments are texts to embed."""

EMBEDDING_SPAN_TYPE: Final = "EMBEDDING"

ATTEMPT: Final = "toolkit.attempt"
"""Operation of an attempt.  The conventions count one operation per logical call, retries and all,
so an attempt has none of theirs, and no tokens and no cost."""

ATTEMPT_SPAN_TYPE: Final = "ATTEMPT"
"""Type of the spans below a call that show its attempts."""

SHARD_SPAN_TYPE: Final = "CHAIN"
"""Type of the roots of shards, and of evaluation cases without calls."""

NOT_CALLS: Final = frozenset({SHARD_SPAN_TYPE, ATTEMPT_SPAN_TYPE})
"""Types of spans that stand for no call: ``spans of all other types = calls`` can be counted."""
