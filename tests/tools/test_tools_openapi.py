"""OpenAPI documents as tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from http_world import DOCUMENT

from toolkit.errors import InvalidFile, NotFound, ToolFailed
from toolkit.tools.offers import Offer, check_arguments
from toolkit.tools.openapi import read_operations


def read(
    folder: Path, operation: dict[str, Any], version: str = "3.1.0", path: str = "/x", **more: Any
) -> Any:
    """Return the one operation of a document."""
    document = {
        "openapi": version,
        "paths": {path: {"post": {"operationId": "it", **operation}}},
        **more,
    }
    file = folder / "one.json"
    file.write_text(json.dumps(document))
    return read_operations(file, frozenset({"it"}))["it"]


def body(schema: Any, kind: str = "application/json", required: bool = True) -> dict[str, Any]:
    return {"requestBody": {"required": required, "content": {kind: {"schema": schema}}}}


def test_a_document_becomes_offers(tmp_path: Path) -> None:
    """Names, words and schemas; what cannot be called is left out unless it is listed."""
    path = tmp_path / "crm.yaml"
    path.write_text(DOCUMENT)
    found = read_operations(path)
    assert "upload" not in found
    find = found["findCustomer"].offer
    assert find.description == "Finds a customer by address."
    assert set(find.parameters["properties"]) == {"email", "tags", "x-trace"}
    assert find.parameters["required"] == ["email"]
    assert find.parameters["additionalProperties"] is False
    create = found["createCustomer"].offer.parameters
    assert set(create["properties"]) == {"email", "nick", "friends"}
    check_arguments(
        "t", Offer("t", "", create), {"email": "a", "nick": None, "friends": [{"email": "b"}]}
    )
    with pytest.raises(InvalidFile, match="text/csv, not JSON"):
        read_operations(path, frozenset({"upload"}))


def test_words_of_3_0_are_read_as_json_schema(tmp_path: Path) -> None:
    """`nullable` and boolean `exclusiveMinimum` mean something else in 3.1."""
    schema = {
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
            "e": {"type": "string", "enum": ["a"], "nullable": True},
        },
    }
    parameters = read(tmp_path, body(schema), "3.0.3").offer.parameters
    assert parameters["properties"]["n"] == {"type": "integer", "exclusiveMinimum": 0}
    check_arguments("t", Offer("t", "", parameters), {"n": 1, "e": None})


def test_a_body_that_is_no_plain_object_is_one_argument(tmp_path: Path) -> None:
    """A list, a choice, an open object, or names that are taken."""
    for schema in (
        {"type": "array", "items": {"type": "string"}},
        {"oneOf": [{"type": "string"}]},
        {"type": "object", "properties": {"a": {}}, "additionalProperties": True},
        True,
    ):
        made = read(tmp_path, body(schema if isinstance(schema, dict) else {}))
        assert made.whole_body
        assert set(made.offer.parameters["properties"]) == {"body"}
    taken = {"parameters": [{"name": "a", "in": "query", "schema": {}}]}
    plain = {"type": "object", "properties": {"a": {"type": "string"}}}
    made = read(tmp_path, {**taken, **body(plain)})
    assert set(made.offer.parameters["properties"]) == {"a", "body"}


UNUSABLE = {
    "cookie": ({"parameters": [{"name": "c", "in": "cookie", "required": True}]}, "in cookie"),
    "style": (
        {"parameters": [{"name": "q", "in": "query", "required": True, "style": "pipeDelimited"}]},
        "style pipeDelimited",
    ),
    "content": (
        {"parameters": [{"name": "q", "in": "query", "required": True, "content": {}}]},
        "described by content",
    ),
    "host header": (
        {"parameters": [{"name": "Host", "in": "header", "required": True}]},
        "the protocol's own header",
    ),
    "other document": (
        {"parameters": [{"$ref": "http://evil.example/x.json#/p"}]},
        "refers to another document",
    ),
    "other document's schema": (
        body({"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}),
        "refers to another document",
    ),
    "circle": ({"parameters": [{"$ref": "#/p/a"}]}, "in a circle"),
    "nowhere": ({"parameters": [{"$ref": "#/p/x"}]}, "which is not there"),
    "path": (
        {"parameters": [{"name": "i", "in": "path", "required": True}]},
        "path parameters differ",
    ),
    "twins": (
        {"parameters": [{"name": "a", "in": "query"}, {"name": "a", "in": "header"}]},
        "two parameters are named a",
    ),
    "form": (body({}, "multipart/form-data"), "multipart/form-data, not JSON"),
}


@pytest.mark.parametrize(("operation", "told"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_what_cannot_be_called_is_refused_by_name(
    tmp_path: Path, operation: dict[str, Any], told: str
) -> None:
    """At the reading of the document, not at the first call."""
    circle = {"a": {"$ref": "#/p/b"}, "b": {"$ref": "#/p/a"}}
    with pytest.raises(InvalidFile, match=r"one\.json: it") as refused:
        read(tmp_path, operation, p=circle)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"openapi": "2.0"}',
        "[1]",
        "{",
        '{"swagger": "2.0"}',
        '{"openapi": "3.1.0", "paths": []}',
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, text: str) -> None:
    """OpenAPI 2 (Swagger) has another shape."""
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InvalidFile, match=r"a\.json"):
        read_operations(path)
    with pytest.raises(NotFound):
        read_operations(tmp_path / "none.json")


def test_a_schema_that_refers_elsewhere_is_never_fetched() -> None:
    """A server's schema could point to an address inside the house."""
    schema = {"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1:9/x.json"}}}
    with pytest.raises(ToolFailed, match="cannot be used"):
        check_arguments("t", Offer("t", "", schema), {"a": 1})
