"""Cedar text to checked policies.

cedarpy names policies by position and reports no lines, so a file is cut into statements first:
each statement is parsed and validated alone, which gives every fault of a bundle at once, with
its line.  Texts are bounded before the vendor sees them: its parser recurses, and 2,000 nested
brackets end the process with a segmentation fault (cedarpy 4.12.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import cedarpy
from cedarpy import pst

from toolkit.errors import Fault
from toolkit.policy.analysis import Reads, ResourceScope, actions_of, reads_of, resource_of
from toolkit.policy.annotations import annotation_faults, parse_annotations
from toolkit.policy.tools import ToolCatalog
from toolkit.policy.typing_check import Checker

__all__ = ["CedarPolicy", "read_policies"]

MAX_BYTES = 256 * 1024
_MAX_STATEMENT = 10_000
_MAX_NESTING = 32
_MAX_POLICIES = 1_000
_TOKEN = re.compile(
    r'(?P<text>"(?:\\.|[^"\\])*")|(?P<comment>//[^\n]*)|(?P<space>\s+)|(?P<end>;)'
    r"|(?P<open>[(\[{]|\bif\b)|(?P<word>\w+|.)",
    re.DOTALL,
)


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
        actions: The actions of its scope, ``None`` for any.
        resource: The resources of its scope.
        reads: What its conditions look at.
        ask: Its ``@ask``: the role that may allow what it forbids.
        expires_s: Its ``@expires``, in seconds.
        shadow: Its ``@shadow``: why it is only tried out.
    """

    id: str
    reason: str | None
    effect: str
    place: str
    text: str
    entities: tuple[tuple[str, str], ...]
    actions: frozenset[str] | None
    resource: ResourceScope
    reads: Reads
    ask: str | None = None
    expires_s: float | None = None
    shadow: str | None = None


@dataclass(frozen=True, slots=True)
class _Statement:
    text: str
    place: str
    nesting: int


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


def read_policies(
    files: Mapping[str, bytes], tools: ToolCatalog | None = None
) -> tuple[list[CedarPolicy], list[Fault]]:
    """Parse and validate the ``*.cedar`` files of one bundle.

    Args:
        files: Content by file name.
        tools: The catalog that types the arguments; default: an empty one.

    Returns:
        The good policies in order, and every fault.
    """
    policies: list[CedarPolicy] = []
    faults: list[Fault] = []
    seen: dict[str, str] = {}
    checker = Checker(ToolCatalog({}) if tools is None else tools)
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
            policy, found = _read_statement(statement, checker)
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


def _read_statement(
    statement: _Statement, checker: Checker
) -> tuple[CedarPolicy | None, list[Fault]]:
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
    notes = parse_annotations(policy.annotations)
    actions, resource = actions_of(policy), resource_of(policy)
    reads = reads_of(policy.clauses)
    faults = [
        *annotation_faults(policy.annotations, policy.effect, place),
        *checker.faults(text, place, actions, resource, reads),
    ]
    return (
        CedarPolicy(
            id=policy.annotations.get("id") or place,
            reason=policy.annotations.get("reason") or None,
            effect=policy.effect,
            place=place,
            text=text,
            entities=tuple(sorted({(str(uid.type), uid.id) for uid in pst.entity_uids(policy)})),
            actions=actions,
            resource=resource,
            reads=reads,
            ask=notes.ask,
            expires_s=notes.expires_s,
            shadow=notes.shadow,
        ),
        faults,
    )
