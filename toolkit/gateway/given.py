"""What people answer in the place of a model, checked as a model's answer is."""

from __future__ import annotations

from typing import Any

from toolkit.errors import UsageError
from toolkit.providers import first_misfit
from toolkit.values import Intent

__all__ = ["checked_answer"]


def checked_answer(question: Intent, given: Any) -> dict[str, Any]:
    """Return what a person answers to a question, checked as a model's answer is.

    Args:
        question: The question.
        given: ``{"text": …}``, or ``{"data": …}`` where the call has a schema.

    Raises:
        UsageError: It is neither, or does not fit the schema.
    """
    schema = question.arguments.get("schema")
    wanted = "text" if schema is None else "data"
    if not isinstance(given, dict) or set(given) != {wanted}:
        raise UsageError(
            f"the person's answer to this call is its {wanted}",
            next_step="toolkit decide ID approve --answer "
            + ("TEXT" if schema is None else "JSON (see the schema in the request)"),
        )
    if schema is None:
        if not isinstance(given["text"], str) or not given["text"].strip():
            raise UsageError("the answer is empty", next_step="write a text, or reject the call")
        return {"text": given["text"]}
    if fault := first_misfit(schema, given["data"]):
        raise UsageError(f"the answer does not fit the schema: {fault}")
    return {"data": given["data"]}
