"""Scorers: one question about one answer, answered with yes, no or a number."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from referencing import Registry

from toolkit.evaluation.judges import KNOWN, MlflowScorer, expectations
from toolkit.evaluation.programs import Program
from toolkit.settings import SCHEMA_FORMATS, absent
from toolkit.values import canonical_bytes

with absent(*SCHEMA_FORMATS):
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

__all__ = ["Judgement", "Scorer", "ScorerKind", "is_number", "look_up", "schema_fault"]

_LONGEST_NOTE = 200


class ScorerKind(StrEnum):
    """What is asked about the answer."""

    EXACT = "exact"  # equals the expected value
    ONE_OF = "one_of"  # is one of the expected values
    NUMERIC = "numeric"  # is within a tolerance of the expected number
    REGEX = "regex"  # matches a pattern as a whole
    JSON_SUBSET = "json_subset"  # holds every member that is expected, and perhaps more
    JSON_SCHEMA = "json_schema"  # fits a JSON Schema
    ABSTAINED = "abstained"  # declines to answer
    WRONG_CLAIM = "wrong_claim"  # claims something, and it is not expected
    VALUE = "value"  # a number: the answer's own
    DISTANCE = "distance"  # a number: how far the answer is from the expected number
    CUSTOM = "custom"  # whatever a Python file of the set asks
    MLFLOW = "mlflow"  # whatever one of MLflow's scorers or judges asks

    @property
    def is_number(self) -> bool:
        """Whether it always answers with a number instead of yes or no."""
        return self in {ScorerKind.VALUE, ScorerKind.DISTANCE}

    @property
    def is_outside(self) -> bool:
        """Whether a process of its own answers; it says by ``better`` what it answers with."""
        return self in {ScorerKind.CUSTOM, ScorerKind.MLFLOW}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a scorer says of one answer.

    Attributes:
        value: Yes or no, or a number, as the scorer's question asks; ``None``: the scorer does not
            score this answer, or it failed.
        note: Why, one sentence; empty when there is nothing to add.
        unusable: The answer could not be judged, so ``value`` is the worse one.
        failed: The scorer failed, which says nothing of the answer; ``note`` says why.
    """

    value: bool | float | None
    note: str = ""
    unusable: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Scorer:
    """One question about an answer.

    Attributes:
        name: What gates call it.
        kind: See :class:`ScorerKind`.
        field: Dotted path into the agent's output; empty means the output itself.
        expected_field: Dotted path into the case's expectation; empty means all of it.
        tolerance: For ``numeric``: largest absolute difference, in the field's own unit.
        relative_tolerance: For ``numeric``: largest difference relative to the expected number.
        pattern: For ``regex``: the pattern; empty means that the expectation holds it.
        abstentions: Values that mean *I do not know*, for ``abstained`` and ``wrong_claim``.
        better: Which answer is the good one: ``yes`` or ``no``; for numbers ``more`` or ``less``.
        worst: For numbers: what an answer that cannot be judged counts.
        range: For numbers: the least and the most that they can be; ``None``: not known.
        json_schema: For ``json_schema``: a schema of draft 2020-12 without references to elsewhere.
        outside: For ``custom`` and ``mlflow``: what answers, in a process of its own.
    """

    name: str
    kind: ScorerKind
    field: str = ""
    expected_field: str = ""
    tolerance: float = 0.0
    relative_tolerance: float = 0.0
    pattern: str = ""
    abstentions: tuple[str, ...] = ()
    better: str = "yes"
    worst: float = 0.0
    json_schema: dict[str, Any] = dataclasses.field(default_factory=dict)
    outside: Program | MlflowScorer | None = None
    range: tuple[float, float] | None = None

    @property
    def is_number(self) -> bool:
        """Whether it answers with a number instead of yes or no."""
        return self.kind.is_number or (self.kind.is_outside and self.better in ("more", "less"))

    @property
    def worse(self) -> bool | float:
        """The value that counts when an answer cannot be judged."""
        return self.worst if self.is_number else self.better == "no"

    @property
    def needs_expectation(self) -> bool:
        """Whether a case must hold ``expected_field`` for this scorer."""
        if self.kind in {ScorerKind.ABSTAINED, ScorerKind.VALUE, ScorerKind.JSON_SCHEMA}:
            return False
        if self.kind.is_outside:
            return bool(self.expected_field) or bool(self._expects)
        return not (self.kind is ScorerKind.REGEX and self.pattern)

    @property
    def _expects(self) -> tuple[str, ...]:
        """Members of which a case's expectation must have one."""
        return KNOWN[self.outside.mlflow].expects if isinstance(self.outside, MlflowScorer) else ()

    def to_json(self) -> dict[str, Any]:
        """Return the scorer as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind.value,
            "field": self.field,
            "expected_field": self.expected_field,
            "tolerance": self.tolerance,
            "relative_tolerance": self.relative_tolerance,
            "pattern": self.pattern,
            "abstentions": list(self.abstentions),
            "better": self.better,
            # Only where it says something, so that digests of older sets stay as they are.
            **({"worst": self.worst} if self.is_number else {}),
            **({"range": list(self.range)} if self.range is not None else {}),
            **({"json_schema": self.json_schema} if self.json_schema else {}),
            **({"outside": self.outside.to_json()} if self.outside else {}),
        }

    def unusable(self, note: str) -> Judgement:
        """Return the worse value, with the reason why the answer could not be judged."""
        return Judgement(self.worse, note, unusable=True)

    def out_of_range(self, value: float) -> str:
        """Say that a number is one that the range does not have; empty if it is none of those."""
        if self.range is None or self.range[0] <= value <= self.range[1]:
            return ""
        return f"{value:g} is not within {self.range[0]:g} to {self.range[1]:g}"

    def fault_in(self, expected: Any) -> str | None:
        """Say what keeps a case's expectation from being used, or ``None`` if it can be."""
        if not self.needs_expectation:
            return None
        found, value = look_up(expected, self.expected_field)
        place = f"expected.{self.expected_field}" if self.expected_field else "expected"
        if not found:
            return f"{place} is missing, which the scorer {self.name!r} needs"
        if self.kind in {ScorerKind.NUMERIC, ScorerKind.DISTANCE} and not is_number(value):
            return f"{place} is {_short(value)}, the scorer {self.name!r} needs a number"
        wanted = self._expects
        if wanted and not any(name in expectations(value) for name in wanted):
            return f"{place} has no {' or '.join(wanted)}, which the scorer {self.name!r} needs"
        if self.kind is ScorerKind.REGEX:
            return _pattern_fault(value, f"{place}, a pattern of the scorer {self.name!r},")
        if self.kind is ScorerKind.ONE_OF and not (isinstance(value, list) and value):
            return f"{place} must be a list of at least one value for the scorer {self.name!r}"
        if self.kind is ScorerKind.WRONG_CLAIM and value == []:
            return f"{place} is an empty list, so every claim would be wrong"
        return None

    def judge(self, output: Any, expected: Any) -> Judgement:
        """Judge one answer.

        Args:
            output: The agent's output, a JSON value.
            expected: The case's expectation, already checked by :meth:`fault_in`.
        """
        if self.outside is not None:
            return Judgement(None, "it was not asked", failed=True)
        found, value = look_up(output, self.field)
        if not found:
            return self.unusable(f"the answer has no field {self.field!r}")
        if self.kind is ScorerKind.ABSTAINED:
            return Judgement(_abstains(value, self.abstentions))
        if self.kind is ScorerKind.REGEX and self.pattern:
            return self._match(value, self.pattern)
        if self.kind.is_number and not is_number(value):
            return self.unusable(f"{_short(value)} is not a number")
        if self.kind is ScorerKind.VALUE:
            return self._within(Judgement(float(value)))
        if self.kind is ScorerKind.JSON_SCHEMA:
            return self._fit(value)
        wanted = look_up(expected, self.expected_field)[1]
        match self.kind:
            case ScorerKind.EXACT:
                return _claim(_same(value, wanted), value, wanted)
            case ScorerKind.ONE_OF:
                return _claim(any(_same(value, item) for item in wanted), value, wanted)
            case ScorerKind.JSON_SUBSET:
                return _claim(_holds(value, wanted), value, wanted)
            case ScorerKind.NUMERIC:
                return self._near(value, wanted)
            case ScorerKind.REGEX:
                return self._match(value, str(wanted))
            case ScorerKind.DISTANCE:
                return self._within(_far(value, wanted))
        return self._wrong_claim(value, wanted)

    def _within(self, judged: Judgement) -> Judgement:
        fault = self.out_of_range(float(judged.value or 0))
        return self.unusable(fault) if fault else judged

    def _near(self, value: Any, wanted: float) -> Judgement:
        if not is_number(value):
            return self.unusable(f"{_short(value)} is not a number")
        room = max(self.tolerance, self.relative_tolerance * abs(wanted))
        return _claim(abs(value - wanted) <= room, value, wanted)

    def _match(self, value: Any, pattern: str) -> Judgement:
        if not isinstance(value, str):
            return self.unusable(f"{_short(value)} is not text")
        matched = re.fullmatch(pattern, value, re.DOTALL) is not None
        return Judgement(matched, "" if matched else f"{_short(value)} does not match {pattern!r}")

    def _fit(self, value: Any) -> Judgement:
        try:
            fault = best_match(_validator(self.json_schema).iter_errors(value))
        except Exception as error:  # noqa: BLE001 - a reference that leads nowhere has many types
            return self.unusable(f"the schema cannot be applied: {_short(str(error))}")
        if fault is None:
            return Judgement(value=True)
        return Judgement(False, f"{fault.json_path}: {_short(fault.message)}")  # noqa: FBT003

    def _wrong_claim(self, value: Any, wanted: Any) -> Judgement:
        if _abstains(value, self.abstentions):
            return Judgement(value=False)
        accepted = wanted if isinstance(wanted, list) else [wanted]
        right = any(_same(value, item) for item in accepted)
        return Judgement(not right, "" if right else _difference(value, wanted))


def look_up(value: Any, path: str) -> tuple[bool, Any]:
    """Return whether the dotted ``path`` leads anywhere in ``value``, and what is there."""
    for name in path.split(".") if path else ():
        if not isinstance(value, dict) or name not in value:
            return False, None
        value = value[name]
    return True, value


def _same(left: Any, right: Any) -> bool:
    try:
        return canonical_bytes(left) == canonical_bytes(right)
    except ValueError:  # not JSON: equal to nothing that a case can expect
        return False


def _holds(value: Any, wanted: Any) -> bool:
    """Whether objects have every expected member, in objects at any depth; all else is equal."""
    if isinstance(value, dict) and isinstance(wanted, dict):
        return all(name in value and _holds(value[name], wanted[name]) for name in wanted)
    return _same(value, wanted)


def _validator(schema: dict[str, Any]) -> Draft202012Validator:
    # An empty registry: a schema that refers to an address does not make us ask there.
    return Draft202012Validator(schema, registry=Registry())


def schema_fault(schema: dict[str, Any]) -> str | None:
    """Say what is wrong with a schema, ``None`` if nothing is."""
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return f"is not a JSON Schema: {error.message}"
    return None


def _abstains(value: Any, abstentions: tuple[str, ...]) -> bool:
    return value is None or value in abstentions


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number; truth values and what no float holds are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond the largest float
        return False


def _pattern_fault(value: Any, place: str) -> str | None:
    if not isinstance(value, str):
        return f"{place} must be text"
    try:
        re.compile(value)
    except re.error as error:
        return f"{place} is not a regular expression: {error}"
    return None


def _claim(right: bool, value: Any, wanted: Any) -> Judgement:
    return Judgement(right, "" if right else _difference(value, wanted))


def _far(value: float, wanted: float) -> Judgement:
    gap = abs(float(value) - float(wanted))
    return Judgement(gap, "" if gap == 0 else _difference(value, wanted))


def _difference(value: Any, wanted: Any) -> str:
    return f"got {_short(value)}, expected {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_NOTE else text[: _LONGEST_NOTE - 1] + "…"
