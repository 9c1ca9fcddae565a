"""Scorers as ``set.yaml`` writes them: every member checked, and made what answers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from toolkit.errors import Fault
from toolkit.evaluation.judges import JUDGE_S, MlflowScorer, argument_faults
from toolkit.evaluation.programs import PROGRAM_S, Program, read_program
from toolkit.evaluation.scorers import Scorer, ScorerKind, schema_fault

__all__ = ["MEASURES", "ScorerEntry"]

_Finite = Annotated[float, Field(allow_inf_nan=False)]

MEASURES = ("usd", "seconds")
"""What the gateway measures per case, beside the scorers of a set."""


class ScorerEntry(BaseModel):
    """One item of ``scorers``; the members are those of :class:`Scorer` and what answers outside."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    kind: Annotated[ScorerKind, Field(strict=False)]
    field: str = ""
    expected_field: str = ""
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    pattern: str = ""
    abstentions: list[str] = []
    json_schema: dict[str, Any] = {}
    better: Literal["yes", "no", "more", "less"] | None = None
    worst: Annotated[float, Field(allow_inf_nan=False)] | None = None
    range: list[_Finite] | None = None
    file: Annotated[str, Field(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]*\.py)?$")] = ""
    function: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] = "score"
    mlflow: str = ""
    route: str = ""
    arguments: dict[str, Any] = {}
    timeout_s: Annotated[float, Field(gt=0, le=600, allow_inf_nan=False)] | None = None
    memory_mb: Annotated[int, Field(ge=64, le=65_536)] | None = None

    @model_validator(mode="after")
    def _directed(self) -> ScorerEntry:
        if self.name in MEASURES:
            raise ValueError(f"{self.name} is measured by the gateway; name the scorer otherwise")
        kind = ScorerKind(self.kind)
        number = kind.is_number or (kind.is_outside and self.better in ("more", "less"))
        if number and (self.worst is None or self.better not in ("more", "less")):
            raise ValueError(
                f"{self.kind} is a number, so it needs better: more or less, and worst: what an "
                "answer counts that is missing"
            )
        if not number and (self.worst is not None or self.better in ("more", "less")):
            hint = "; where it answers with numbers, say better: more or less" * kind.is_outside
            raise ValueError(f"{self.kind} answers yes or no; it has no worst, more or less{hint}")
        return self

    @model_validator(mode="after")
    def _ranged(self) -> ScorerEntry:
        if self.range is None:
            return self
        if self.worst is None:
            raise ValueError(f"{self.kind} answers yes or no; it has no range")
        if len(self.range) != 2 or not self.range[0] < self.range[1]:  # noqa: PLR2004 - a pair
            raise ValueError("range is the least and the most that the number can be: [0, 5]")
        if not self.range[0] <= self.worst <= self.range[1]:
            raise ValueError(f"worst is {self.worst:g}, which is not within the range")
        return self

    @model_validator(mode="after")
    def _answered_outside(self) -> ScorerEntry:
        given = {"file": self.file, "mlflow": self.mlflow, "route": self.route}
        own = {"custom": {"file"}, "mlflow": {"mlflow", "route"}}.get(self.kind, set())
        for member in sorted(name for name, value in given.items() if value and name not in own):
            raise ValueError(f"{self.kind} has no {member}")
        if self.arguments and self.kind != "mlflow":
            raise ValueError(f"{self.kind} has no arguments; only mlflow has")
        if self.function != "score" and self.kind != "custom":
            raise ValueError(f"{self.kind} has no function; only custom has")
        if (self.timeout_s or self.memory_mb) and not ScorerKind(self.kind).is_outside:
            raise ValueError(
                f"{self.kind} has no timeout_s or memory_mb; only custom and mlflow have"
            )
        if self.kind == "custom" and not self.file:
            raise ValueError("custom needs file: a Python file beside set.yaml")
        if self.kind == "mlflow":
            faults = list(argument_faults(self.mlflow, self.route, self.arguments))
            if faults:
                raise ValueError("; ".join(faults))
        return self

    @model_validator(mode="after")
    def _fits(self) -> ScorerEntry:
        if self.kind == "abstained" and not self.abstentions:
            raise ValueError("abstained needs abstentions: the values that mean 'I do not know'")
        if self.kind != "numeric" and (self.tolerance or self.relative_tolerance):
            raise ValueError(f"{self.kind} has no tolerance; only numeric has")
        if self.kind != "regex" and self.pattern:
            raise ValueError(f"{self.kind} has no pattern; only regex has")
        if self.kind not in ("abstained", "wrong_claim") and self.abstentions:
            raise ValueError(f"{self.kind} has no abstentions")
        if (self.kind == "json_schema") != bool(self.json_schema):
            raise ValueError("json_schema is a member of the kind json_schema, and of no other")
        if fault := schema_fault(self.json_schema):
            raise ValueError(f"json_schema {fault}")
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ValueError(f"the pattern is not a regular expression: {error}") from error
        return self

    def made(self, folder: Path, faults: list[Fault]) -> Scorer:
        """Return the scorer; what is wrong with its file is added to ``faults``."""
        usual = "no" if self.kind in ("wrong_claim", "abstained") else "yes"
        return Scorer(
            name=self.name,
            kind=ScorerKind(self.kind),
            field=self.field,
            expected_field=self.expected_field,
            tolerance=self.tolerance,
            relative_tolerance=self.relative_tolerance,
            pattern=self.pattern,
            abstentions=tuple(self.abstentions),
            better=self.better or usual,
            worst=self.worst or 0.0,
            json_schema=self.json_schema,
            outside=self._outside(folder, faults),
            range=None if self.range is None else (self.range[0], self.range[1]),
        )

    def _outside(self, folder: Path, faults: list[Fault]) -> Program | MlflowScorer | None:
        memory = {"memory_bytes": self.memory_mb << 20} if self.memory_mb else {}
        if self.kind == "custom":
            source = read_program(folder, self.file, self.function, faults)
            wait = self.timeout_s or PROGRAM_S
            return Program(self.file, self.function, source or "", wait, **memory)
        if self.kind == "mlflow":
            wait = self.timeout_s or JUDGE_S
            return MlflowScorer(self.mlflow, self.route, self.arguments, wait, **memory)
        return None
