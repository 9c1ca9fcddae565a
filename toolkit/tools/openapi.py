"""Operations of an OpenAPI 3.0 or 3.1 document (https://spec.openapis.org/oas/v3.1.0).

An operation becomes a tool with named arguments: its path, query and header parameters, and the
members of its JSON body if that is a plain object whose names are free, else one argument
``body``.  References stay inside of the document; nothing is fetched.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from toolkit.errors import Fault, InvalidFile, NotFound
from toolkit.settings import YamlDocument, parse_yaml
from toolkit.tools.offers import Offer

__all__ = ["Operation", "Parameter", "read_operations"]

_METHODS = ("get", "put", "post", "delete", "patch", "head", "options")
_MAX_JSON_BYTES = 4 * 1024 * 1024
_MAX_HOPS = 20
_VERSION = re.compile(r"3\.[01](\.[0-9]+)?")
_STYLES = {"path": "simple", "query": "form", "header": "simple"}
# Specified to be left to the transport and to `security`, whatever a document says.
_NOT_ARGUMENTS = frozenset({"accept", "content-type", "authorization"})
_NOT_HEADERS = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "cookie", "upgrade", "te"}
)


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation.

    Attributes:
        name: Its name, also the argument's.
        place: ``path``, ``query`` or ``header``.
        explode: Whether a list becomes several query parameters.
        deep: Whether an object becomes ``name[key]=value``.
    """

    name: str
    place: str
    explode: bool = True
    deep: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation that can be called.

    Attributes:
        offer: Name, description and schema of the arguments.
        method: HTTP method in capitals.
        path: Template such as ``/customers/{id}``.
        parameters: Where arguments go.
        body: Names of the arguments that make up the JSON body; ``None``: there is no body.
        whole_body: Whether the argument ``body`` *is* the body.
        media_type: Of the body.
    """

    offer: Offer
    method: str
    path: str
    parameters: tuple[Parameter, ...] = ()
    body: frozenset[str] | None = None
    whole_body: bool = False
    media_type: str = "application/json"


def read_operations(path: Path, wanted: frozenset[str] | None = None) -> dict[str, Operation]:
    """Read operations by ``operationId``.

    Args:
        path: The document, ``.json`` or YAML (of at most 256 KiB, without anchors).
        wanted: The operations to read, all of which have to be there; ``None``: every one that
            can be called (others are left out).

    Raises:
        NotFound: The document cannot be read.
        InvalidFile: It is no OpenAPI 3 document, or wanted operations cannot be called; all
            reasons are named.
    """
    value = _read(path)
    document = _Document(value)
    faults: list[Fault] = []
    found: dict[str, Operation] = {}
    for template, method, item, operation in document.operations():
        name = str(operation.get("operationId", ""))
        if not name or (wanted is not None and name not in wanted):
            continue
        where = f"{path.name}: {name}"
        try:
            twice = name in found
            found[name] = document.operation(name, template, method, item, operation)
        except _Unusable as error:
            if wanted is not None:
                faults.append(Fault(where, str(error), "do not list the operation"))
            wanted = wanted if wanted is None else wanted - {name}
        else:
            if twice:
                faults.append(Fault(where, "the operationId stands there twice"))
    for name in sorted((wanted or frozenset()) - set(found)):
        offered = ", ".join(sorted(document.names())[:20]) or "none"
        faults.append(Fault(f"{path.name}: {name}", f"there is no such operationId ({offered})"))
    if faults:
        raise InvalidFile.of(str(path), faults)
    return found


class _Unusable(Exception):
    """Why an operation cannot be called; one sentence."""


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"the OpenAPI document {path} cannot be read: {error.strerror}",
            where=str(path),
            next_step="save the service's document there; it is never fetched",
        ) from error
    faults: list[Fault] = []
    value: Any = None
    if path.suffix == ".json":
        if len(data) > _MAX_JSON_BYTES:
            faults.append(Fault(path.name, f"holds more than {_MAX_JSON_BYTES} bytes"))
        else:
            try:
                value = orjson.loads(data)
            except orjson.JSONDecodeError as error:
                faults.append(Fault(path.name, f"is not JSON: {error}"))
    else:
        document: YamlDocument
        document, faults = parse_yaml(data, path.name)
        value = document.value
    if not faults:
        faults = list(_shape_faults(path.name, value))
    if faults:
        raise InvalidFile.of(str(path), faults)
    made: dict[str, Any] = value
    return made


def _shape_faults(name: str, value: Any) -> Iterator[Fault]:
    version = value.get("openapi") if isinstance(value, dict) else None
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        step = 'write the version as text, such as openapi: "3.0.3"'
        yield Fault(name, "is no OpenAPI document of version 3.0 or 3.1", step)
    elif not isinstance(value.get("paths", {}), dict):
        yield Fault(f"{name} paths", "is no mapping")


@dataclass
class _Document:
    value: dict[str, Any]
    _new_style: bool = field(init=False)

    def __post_init__(self) -> None:
        self._new_style = str(self.value.get("openapi")).startswith("3.1")

    def names(self) -> list[str]:
        return [str(o["operationId"]) for *_, o in self.operations() if "operationId" in o]

    def operations(self) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any]]]:
        for template, item in self.value.get("paths", {}).items():
            if isinstance(item, dict):
                for method in _METHODS:
                    if isinstance(item.get(method), dict):
                        yield template, method, item, item[method]

    def operation(
        self, name: str, template: str, method: str, item: dict[str, Any], described: dict[str, Any]
    ) -> Operation:
        """Return one operation.

        Raises:
            _Unusable: It needs something that is not supported.
        """
        properties: dict[str, Any] = {}
        required: list[str] = []
        parameters = tuple(self._parameters(item, described, properties, required))
        _check_template(template, parameters)
        body, whole, media_type, more = self._body(described, properties, required)
        definitions: dict[str, Any] = {}
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {n: self._schema(s, definitions) for n, s in properties.items()},
            "additionalProperties": more,
        }
        if required:
            schema["required"] = sorted(required)
        if definitions:
            schema["$defs"] = definitions
        texts = (described.get("summary"), described.get("description"))
        description = "\n".join(str(text) for text in texts if text)
        offer = Offer(name, description, schema)
        return Operation(offer, method.upper(), template, parameters, body, whole, media_type)

    def _parameters(
        self,
        item: dict[str, Any],
        described: dict[str, Any],
        properties: dict[str, Any],
        required: list[str],
    ) -> Iterator[Parameter]:
        """Yield the parameters; an operation's own replace those of its path."""
        merged: dict[tuple[str, str], dict[str, Any]] = {}
        for one in [*item.get("parameters", []), *described.get("parameters", [])]:
            parameter = self._resolved(one)
            merged[str(parameter.get("name")), str(parameter.get("in"))] = parameter
        for (name, place), parameter in merged.items():
            if place == "header" and name.lower() in _NOT_ARGUMENTS:
                continue
            must = parameter.get("required") is True
            try:
                made = _parameter(name, place, parameter)
            except _Unusable:
                if must:
                    raise
                continue  # an optional parameter that cannot be sent is not sent
            if name in properties:
                raise _Unusable(f"two parameters are named {name}")
            schema = dict(parameter.get("schema") or {})
            if parameter.get("description"):
                schema.setdefault("description", parameter["description"])
            properties[name] = schema
            if must:
                required.append(name)
            yield made

    def _body(
        self, described: dict[str, Any], properties: dict[str, Any], required: list[str]
    ) -> tuple[frozenset[str] | None, bool, str, bool]:
        if "requestBody" not in described:
            return None, False, "", False
        body = self._resolved(described["requestBody"])
        content = body.get("content", {})
        media_type = next((kind for kind in content if _is_json(kind)), None)
        if media_type is None:
            if body.get("required") is True:
                raise _Unusable(f"its body is {', '.join(content) or 'of no type'}, not JSON")
            return None, False, "", False
        schema = content[media_type].get("schema") or {}
        flat = self._resolved(schema)
        members = flat.get("properties")
        plain = (
            flat.get("type") == "object"
            and isinstance(members, dict)
            and not {"allOf", "anyOf", "oneOf", "not"} & set(flat)
            and flat.get("additionalProperties") in (None, False)
            and not set(members) & set(properties)
            and body.get("required") is True
        )
        if plain and members is not None:
            own = {n: s for n, s in members.items() if not _read_only(s)}
            properties.update(own)
            required.extend(n for n in flat.get("required", []) if n in own)
            return frozenset(own), False, media_type, False
        if "body" in properties:
            raise _Unusable("a parameter is named body, and so is the body")
        properties["body"] = schema
        if body.get("required") is True:
            required.append("body")
        return frozenset({"body"}), True, media_type, False

    def _resolved(self, value: Any) -> dict[str, Any]:
        """Follow references inside of the document."""
        for _ in range(_MAX_HOPS):
            if not isinstance(value, dict):
                raise _Unusable("it holds something that is no mapping where one is needed")
            if "$ref" not in value:
                return value
            value = self._target(str(value["$ref"]))
        raise _Unusable("it refers in a circle")

    def _target(self, reference: str) -> Any:
        if not reference.startswith("#/"):
            raise _Unusable(f"it refers to another document ({reference[:80]!a})")
        value: Any = self.value
        for step in reference[2:].split("/"):
            key = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or key not in value:
                raise _Unusable(f"it refers to {reference[:80]!a}, which is not there")
            value = value[key]
        return value

    def _schema(self, schema: Any, definitions: dict[str, Any]) -> Any:
        """Return a schema as JSON Schema 2020-12; what it refers to goes into ``definitions``."""
        if isinstance(schema, list):
            return [self._schema(item, definitions) for item in schema]
        if not isinstance(schema, dict):
            return schema
        if isinstance(schema.get("$ref"), str):
            reference = schema["$ref"]
            name = reference.removeprefix("#/").replace("/", ".")
            if name not in definitions:
                definitions[name] = {}  # a type may hold itself
                definitions[name] = self._schema(self._target(reference), definitions)
            return {"$ref": f"#/$defs/{name.replace('~', '~0')}"}
        made: dict[str, Any] = {}
        for key, value in schema.items():
            if key in ("properties", "patternProperties") and isinstance(value, dict):
                made[key] = {name: self._schema(part, definitions) for name, part in value.items()}
            elif key in ("enum", "const", "default", "required"):
                made[key] = value
            elif key not in ("example", "examples", "xml", "externalDocs", "discriminator"):
                made[key] = self._schema(value, definitions)
        return made if self._new_style else _modern(made)


def _modern(schema: dict[str, Any]) -> dict[str, Any]:
    """Turn the schema words of OpenAPI 3.0 into those of JSON Schema."""
    for bound, old in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if isinstance(schema.get(bound), bool) and schema.pop(bound) and old in schema:
            schema[bound] = schema.pop(old)
    if schema.pop("nullable", False) is True:
        kind = schema.get("type")
        if isinstance(kind, str):
            schema["type"] = [kind, "null"]
        if isinstance(schema.get("enum"), list) and None not in schema["enum"]:
            schema["enum"] = [*schema["enum"], None]
    return schema


def _parameter(name: str, place: str, described: dict[str, Any]) -> Parameter:
    if place not in _STYLES:
        raise _Unusable(f"the parameter {name} is in {place}")
    if "content" in described:
        raise _Unusable(f"the parameter {name} is described by content")
    if place == "header" and name.lower() in _NOT_HEADERS:
        raise _Unusable(f"the parameter {name} is the protocol's own header")
    style = described.get("style", _STYLES[place])
    deep = place == "query" and style == "deepObject"
    if style != _STYLES[place] and not deep:
        raise _Unusable(f"the parameter {name} has the style {style}")
    return Parameter(name, place, described.get("explode", True) is not False, deep)


def _check_template(template: str, parameters: tuple[Parameter, ...]) -> None:
    named = set(re.findall(r"\{([^{}]*)\}", template))
    given = {parameter.name for parameter in parameters if parameter.place == "path"}
    if not template.startswith("/"):
        raise _Unusable("its path does not begin with /")
    if named != given:
        odd = ", ".join(sorted(named ^ given))
        raise _Unusable(f"path and path parameters differ ({odd})")


def _is_json(media_type: str) -> bool:
    plain = media_type.partition(";")[0].strip().lower()
    return plain == "application/json" or plain.endswith("+json")


def _read_only(schema: Any) -> bool:
    return isinstance(schema, dict) and schema.get("readOnly") is True
