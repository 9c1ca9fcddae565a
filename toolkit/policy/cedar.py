"""Cedar text to a ready policy set, and one question to its answer.  The owner of cedarpy.

cedarpy names policies by position and reports no lines, so a file is cut into statements first:
each statement is parsed and validated alone, which gives every fault of a bundle at once, with
its line.  Texts are bounded before the vendor sees them: its parser recurses, and 2,000 nested
brackets end the process with a segmentation fault (cedarpy 4.12.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cedarpy
from cedarpy import pst

from toolkit.errors import Fault
from toolkit.policy.schema import schema_text

__all__ = ["CedarPolicy", "Engine", "Ruling", "compile_policies", "read_policies"]

MAX_BYTES = 256 * 1024
_MAX_STATEMENT = 10_000
_MAX_NESTING = 32
_MAX_POLICIES = 1_000
_TOKEN = re.compile(
    r'(?P<text>"(?:\\.|[^"\\])*")|(?P<comment>//[^\n]*)|(?P<space>\s+)|(?P<end>;)'
    r"|(?P<open>[(\[{]|\bif\b)|(?P<word>\w+|.)",
    re.DOTALL,
)
_POSITIONAL = re.compile(r"\bpolicy([0-9]+)\b")
_ANNOTATIONS = {"id", "reason"}


@dataclass(frozen=True, slots=True)
class CedarPolicy:
    """One ``permit`` or ``forbid``.

    Attributes:
        id: Its ``@id``.
        reason: Its ``@reason``, for a person who was denied.
        effect: ``permit`` or ``forbid``.
        place: ``file:line`` where it starts.
        text: Its source.
        entities: ``(type, id)`` of every entity that it names.
    """

    id: str
    reason: str | None
    effect: str
    place: str
    text: str
    entities: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What Cedar answered.

    Attributes:
        allowed: Cedar's decision, and no policy failed.
        policies: The policies that decided, empty for a default deny.
        failures: What could not be evaluated, one sentence each.
        evaluated: ``False`` when the question itself could not be put to Cedar.
    """

    allowed: bool
    policies: tuple[CedarPolicy, ...] = ()
    failures: tuple[str, ...] = ()
    evaluated: bool = True

    @classmethod
    def unasked(cls, *failures: str) -> Ruling:
        """The question could not be put to Cedar, so it is not allowed."""
        return cls(allowed=False, failures=failures, evaluated=False)


@dataclass(frozen=True, slots=True)
class _Statement:
    text: str
    place: str
    nesting: int


@cache
def _schema() -> cedarpy.Schema:
    return cedarpy.Schema.from_str(schema_text())


def _statements(text: str, name: str) -> Iterator[_Statement]:
    """Cut Cedar text at its semicolons; text and comments may hold semicolons too."""
    start, line, first_line = 0, 1, None
    nesting = deepest = 0
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        if first_line is None and kind not in ("space", "comment"):
            first_line = line
        if kind == "open":
            nesting += 1
            deepest = max(deepest, nesting)
        elif kind == "word" and token[0] in ")]}":
            nesting -= 1
        line += token[0].count("\n")
        if kind == "end":
            yield _Statement(text[start : token.end()], f"{name}:{first_line}", deepest)
            start, first_line, nesting, deepest = token.end(), None, 0, 0
    if first_line is not None:
        yield _Statement(text[start:], f"{name}:{first_line}", deepest)


def read_policies(files: Mapping[str, bytes]) -> tuple[list[CedarPolicy], list[Fault]]:
    """Parse and validate the ``*.cedar`` files of one bundle.

    Args:
        files: Content by file name.

    Returns:
        The good policies in order, and every fault.
    """
    policies: list[CedarPolicy] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    for name, data in sorted(files.items()):
        if len(data) > MAX_BYTES:
            faults.append(Fault(name, f"holds {len(data)} bytes, more than {MAX_BYTES}"))
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            faults.append(Fault(name, f"is not UTF-8 at byte {error.start}"))
            continue
        for statement in _statements(text, name):
            policy, found = _read_statement(statement)
            faults.extend(found)
            if policy is None:
                continue
            if policy.id in seen:
                faults.append(
                    Fault(
                        policy.place,
                        f'repeats @id("{policy.id}") of {seen[policy.id]}',
                        "give every policy its own @id",
                    )
                )
            seen.setdefault(policy.id, policy.place)
            policies.append(policy)
    if len(policies) > _MAX_POLICIES:
        faults.append(Fault("*.cedar", f"hold {len(policies)} policies, more than {_MAX_POLICIES}"))
    return policies, faults


def _read_statement(statement: _Statement) -> tuple[CedarPolicy | None, list[Fault]]:
    place, text = statement.place, statement.text
    if len(text) > _MAX_STATEMENT:
        message = f"the policy is longer than {_MAX_STATEMENT} characters"
        return None, [Fault(place, message, "split it into several policies")]
    if statement.nesting > _MAX_NESTING:
        message = f"the policy is nested deeper than {_MAX_NESTING} levels"
        return None, [Fault(place, message, "split it into several policies")]
    try:
        tree = cedarpy.PolicySet.from_str(text).to_pst()
    except ValueError as error:
        return None, [Fault(place, f"is not a Cedar policy: {error}")]
    if tree.templates or len(tree.static_policies) != 1:
        message = "is a template (?principal, ?resource), which nothing here links"
        return None, [Fault(place, message, "name the principal or resource")]
    policy = next(iter(tree.static_policies.values()))
    faults = [*_annotation_faults(policy.annotations, place), *_schema_faults(text, place)]
    return (
        CedarPolicy(
            id=policy.annotations.get("id") or place,
            reason=policy.annotations.get("reason") or None,
            effect=policy.effect,
            place=place,
            text=text,
            entities=tuple(sorted({(str(uid.type), uid.id) for uid in pst.entity_uids(policy)})),
        ),
        faults,
    )


def _annotation_faults(annotations: Mapping[str, str], place: str) -> Iterator[Fault]:
    if not annotations.get("id"):
        yield Fault(place, "has no @id", 'put @id("what-it-does") before the policy')
    for name in sorted(set(annotations) - _ANNOTATIONS):
        yield Fault(place, f"has the unknown annotation @{name}", "use @id and @reason")


def _schema_faults(text: str, place: str) -> Iterator[Fault]:
    result = cedarpy.validate_policies(text, _schema())
    for finding in result.errors:
        yield Fault(place, finding.error.removeprefix("for policy `policy0`, "))


class Engine:
    """A parsed policy set; immutable and safe to share between threads."""

    def __init__(self, policies: Sequence[CedarPolicy], handle: cedarpy.PolicySet) -> None:
        self._policies = tuple(policies)
        self._handle = handle

    def ask(self, request: dict[str, Any], entities: list[dict[str, Any]]) -> Ruling:
        """Put one question to Cedar.  Never raises: what cannot be answered is not allowed.

        Cedar skips a policy that fails to evaluate, and a skipped ``forbid`` would open the
        door; so any failure means *not allowed*, whatever the other policies say.
        """
        try:
            result = cedarpy.is_authorized(request, self._handle, entities)
        except Exception as error:  # fails closed on whatever the vendor raises
            return Ruling.unasked(f"{type(error).__name__} in the policy engine")
        errors = result.diagnostics.errors
        if result.decision is cedarpy.Decision.NoDecision:
            return Ruling.unasked(*(errors or ["the policy engine gave no decision"]))
        if errors:
            failures = tuple(map(self._readable, errors))
            return Ruling(allowed=False, policies=self._named(errors), failures=failures)
        return Ruling(result.allowed, self._named(result.diagnostics.reasons))

    def _named(self, texts: Sequence[str]) -> tuple[CedarPolicy, ...]:
        """The policies that Cedar mentions by position, in the order of the files."""
        numbers = {int(n) for text in texts for n in _POSITIONAL.findall(text)}
        return tuple(self._policies[n] for n in sorted(numbers) if n < len(self._policies))

    def _readable(self, error: str) -> str:
        return _POSITIONAL.sub(
            lambda m: self._policies[int(m[1])].id if int(m[1]) < len(self._policies) else m[0],
            error,
        )


def compile_policies(policies: Sequence[CedarPolicy]) -> tuple[Engine | None, list[Fault]]:
    """Build the engine of a bundle whose policies have no faults."""
    try:
        handle = cedarpy.PolicySet.from_str("\n".join(policy.text for policy in policies))
    except ValueError as error:
        return None, [Fault("*.cedar", f"do not parse together: {error}")]
    if len(handle) != len(policies):  # positions would name the wrong policies
        return None, [Fault("*.cedar", f"hold {len(handle)} policies, read {len(policies)}")]
    return Engine(policies, handle), []
