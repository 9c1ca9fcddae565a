"""Names of span attributes: one table, one version string.

Source: the OpenTelemetry semantic conventions for generative AI (status *development*; the Python
package marks its own constants deprecated because the registry moved, so the names are kept here),
and MLflow 3.17 ``mlflow/tracing/constant.py`` for the ``mlflow.*`` attributes.
"""

from __future__ import annotations

from typing import Final

from toolkit.values import CallKind

__all__ = [
    "CHARS_ATTRIBUTE",
    "CHARS_NAME",
    "CHARS_TAG",
    "CONVENTIONS_VERSION",
    "OPERATIONS",
    "SHARD_SPAN_TYPE",
    "SPAN_TYPES",
    "GenAi",
    "Mlflow",
]

CONVENTIONS_VERSION: Final = "otel-genai-2026.1/mlflow-3.17"
"""Written on every span as ``toolkit.conventions``; change it with any name in this file."""

CHARS_NAME: Final = 200
"""Longest span or trace name that we write, characters."""

CHARS_TAG: Final = 250
"""Longest tag value that we write, characters (every MLflow backend takes 250)."""

CHARS_ATTRIBUTE: Final = 1_000
"""Longest error message or reason on a span, characters."""


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
    ERROR_TYPE = "error.type"


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
    # The conventions have no name for these two; the prefix keeps them ours.
    CallKind.HUMAN: "toolkit.ask_human",
    CallKind.RESULT: "toolkit.publish_result",
}

SPAN_TYPES: Final[dict[CallKind, str]] = {
    CallKind.MODEL: "CHAT_MODEL",
    CallKind.TOOL: "TOOL",
    CallKind.AGENT: "AGENT",
    CallKind.DATA: "RETRIEVER",
    CallKind.JOB: "WORKFLOW",
    CallKind.HUMAN: "HUMAN",
    CallKind.RESULT: "TASK",
}

SHARD_SPAN_TYPE: Final = "CHAIN"
"""Type of spans that stand for no call (roots of shards, evaluation cases without calls).

No call has this type, so ``spans of all other types = calls`` can be counted.
"""
