"""YAML as plain data: one document, no aliases, no tags, no twin keys, bounded size and depth.

Only the JSON-like part of YAML 1.2 is read (https://yaml.org/spec/1.2.2/#103-core-schema):
mappings with text keys, sequences, text, ``true``/``false``, ``null``, decimal numbers.  So
``no`` is text, ``1:30`` is text, and 254 bytes cannot grow into 28 MB.  The value is built from
parser events without recursion, and every fault is found with its line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from toolkit.errors import Fault, InvalidFile, NotFound

__all__ = ["Checked", "YamlDocument", "model_faults", "parse_yaml", "read_model"]

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
_MAX_EVENTS = 50_000
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_FLOAT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", re.ASCII)
_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "true": True, "false": False}

Path = tuple[str | int, ...]
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class YamlDocument:
    """A parsed document.

    Attributes:
        name: The file's name, for messages.
        value: JSON values.
        lines: Line (from 1) of every value, by its path.
    """

    name: str
    value: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def place(self, path: Path) -> str:
        """Return ``name:line dotted.path`` of a value, or of its nearest known parent."""
        line = 1
        for length in range(len(path), -1, -1):
            if path[:length] in self.lines:
                line = self.lines[path[:length]]
                break
        return f"{self.name}:{line} {'.'.join(map(str, path))}".rstrip()


@dataclass(frozen=True)
class Checked(Generic[M]):
    """A file's content as a model, with the document that knows its lines."""

    value: M
    document: YamlDocument


@dataclass
class _Open:
    """A mapping or sequence that is being filled."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


def parse_yaml(data: bytes, name: str) -> tuple[YamlDocument, list[Fault]]:
    """Read one YAML document.

    Args:
        data: The file's bytes.
        name: How to name the file in faults.

    Returns:
        The document and its faults; the value is only worth reading when there are none.
    """
    if len(data) > MAX_BYTES:
        fault = Fault(name, f"holds {len(data)} bytes, more than the {MAX_BYTES} allowed")
        return YamlDocument(name, None), [fault]
    try:
        return _Builder(name).build(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        return YamlDocument(name, None), [Fault(name, f"is not UTF-8 at byte {error.start}")]


def read_model(path: FilePath, model: type[M], what: str, *, missing: str) -> Checked[M]:
    """Read a YAML file as a pydantic model.

    Args:
        path: The file.
        model: What it must fit.
        what: The file's kind, for messages (``tool catalog``).
        missing: What to do when there is no such file.

    Raises:
        NotFound: The file cannot be read.
        InvalidFile: It has faults (all are named, with their line).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotFound(
            f"the {what} {path} cannot be read: {error.strerror}",
            where=str(path),
            next_step=missing,
        ) from error
    document, faults = parse_yaml(data, path.name)
    if not faults:
        try:
            return Checked(model.model_validate(document.value), document)
        except ValidationError as error:
            faults = model_faults(error, document)
    raise InvalidFile.of(str(path), faults)


class _Builder:
    def __init__(self, name: str) -> None:
        self._name = name
        self._faults: list[Fault] = []
        self._lines: dict[Path, int] = {}
        self._stack: list[_Open] = []
        self._root: Any = None
        self._documents = 0

    def build(self, text: str) -> tuple[YamlDocument, list[Fault]]:
        try:
            for count, event in enumerate(self._events(text)):
                if count > _MAX_EVENTS:
                    self._fault(event, f"has more than {_MAX_EVENTS} parts")
                    break
                if not self._take(event):
                    break
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self._name}:{mark.line + 1}" if mark else self._name
            self._faults.append(Fault(where, f"is not YAML: {_problem(error)}"))
        return YamlDocument(self._name, self._root, self._lines), self._faults

    @staticmethod
    def _events(text: str) -> Iterator[Any]:
        yield from yaml.parse(text, Loader=_LOADER)

    def _fault(self, event: Any, message: str, next_step: str | None = None) -> None:
        where = f"{self._name}:{event.start_mark.line + 1}"
        self._faults.append(Fault(where, message, next_step))

    def _take(self, event: Any) -> bool:
        """Add one event; ``False`` ends the reading."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._fault(event, "holds more than one document")
                return False
        elif isinstance(event, yaml.AliasEvent):
            self._fault(event, f"uses the alias *{event.anchor}", "write the value out")
            self._put(None, event)
        elif isinstance(event, yaml.ScalarEvent):
            self._check_node(event)
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._check_node(event)
            return self._open(event)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._stack.pop()
        return True

    def _check_node(self, event: Any) -> None:
        if event.anchor is not None:
            self._fault(event, f"uses the anchor &{event.anchor}", "remove it")
        if event.tag is not None and event.tag != "!":
            self._fault(event, f"uses the tag {event.tag}", "remove it")

    def _open(self, event: Any) -> bool:
        if len(self._stack) >= MAX_DEPTH:
            self._fault(event, f"is nested deeper than {MAX_DEPTH} levels")
            return False
        if self._stack and self._awaits_key():
            self._fault(event, "has a mapping or list as a key", "use text keys")
            return False
        value: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(value, self._put(value, event)))
        return True

    def _awaits_key(self) -> bool:
        top = self._stack[-1]
        return isinstance(top.value, dict) and top.key is None

    def _scalar(self, event: Any) -> None:
        if self._stack and self._awaits_key():
            top = self._stack[-1]
            if event.value == "<<" and not event.style:
                self._fault(event, "uses the merge key <<", "write the keys out")
            if event.value in top.value:
                self._fault(event, f"repeats the key {event.value!r}", "keep one of the two")
            top.key = event.value
            return
        self._put(self._resolve(event), event)

    def _resolve(self, event: Any) -> Any:
        text: str = event.value
        if event.style:  # quoted or block text
            return text
        if text.lower() in _WORDS and text in (text.lower(), text.title(), text.upper()):
            return _WORDS[text.lower()]
        if _INTEGER.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            number = float(text)
            if not math.isfinite(number):
                self._fault(event, f"holds the number {text[:40]}, which is too large")
            return number
        return text

    def _put(self, value: Any, event: Any) -> Path:
        """Store a value in the open collection and return its path."""
        if not self._stack:
            self._root = value
            self._lines[()] = event.start_mark.line + 1
            return ()
        top = self._stack[-1]
        step: str | int
        if isinstance(top.value, list):
            step = len(top.value)
            top.value.append(value)
        else:
            step, top.key = top.key or "", None
            top.value[step] = value
        path = (*top.path, step)
        self._lines[path] = event.start_mark.line + 1
        return path


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed")


def model_faults(error: ValidationError, document: YamlDocument) -> list[Fault]:
    """Turn pydantic's findings into faults with lines; values are never repeated."""
    faults = []
    for item in error.errors(include_input=False, include_url=False, include_context=False):
        path = tuple(item["loc"])
        ours = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "is not a known key"
        elif item["type"] == "missing":
            message = "is missing"
        elif ours != item["msg"]:
            message = ours  # it may begin with a name
        else:
            message = ours[:1].lower() + ours[1:]
        faults.append(Fault(document.place(path), message))
    return faults
