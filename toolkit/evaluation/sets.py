"""Evaluation sets: versioned cases with their scorers, read from two files.

``set.yaml``::

    schema: evaluation/1
    name: licence-review            # the folder's name
    description: what is asked, and where the truth comes from
    agent: review_licence           # a function of the notebook
    parameters: {limit: 0}          # of the notebook, while its agent is evaluated
    target: agent                   # or job: each case's inputs are the parameters of a whole run
    trials: 1                       # how often each case is asked
    concurrency: 1                  # how many cases are under way at a time
    kernels: 1                      # how many kernels answer, no more than there are processors
    cases: cases.jsonl
    slices: {developed: …, held-out: …}      # optional; then each case names one of them
    scorers:
      - {name: correct, kind: exact, field: licence, expected_field: licence}
      - {name: close, kind: custom, file: close.py}     # a function of a file in the same folder
      - {name: polite, kind: mlflow, mlflow: Guidelines, route: judge, arguments: {guidelines: […]}}

``cases.jsonl``, one JSON object a line::

    {"id": "click", "inputs": {"name": "click"}, "expected": {"licence": "…"}, "slice": "developed"}
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from toolkit.errors import Fault, InvalidFile, UsageError
from toolkit.evaluation.entries import MEASURES, ScorerEntry
from toolkit.evaluation.files import parse_json_line, read_document, read_text
from toolkit.evaluation.scorers import Scorer
from toolkit.settings import YamlDocument, model_faults
from toolkit.values import Digest, canonical_bytes, check_name, check_parameter_name, digest_json

__all__ = ["MEASURES", "Case", "EvaluationSet", "question_of", "read_cases"]

_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
_MEMBERS = {"id", "inputs", "expected", "slice"}


@dataclass(frozen=True, slots=True)
class Case:
    """One question and its expectation.

    Attributes:
        id: Unique in the set.
        inputs: Keyword arguments of the agent; all that a kernel is given.
        expected: What scorers compare with; never leaves the evaluator.
        slice: Which part of the set it belongs to, empty if it has no parts.
        line: Its line in ``cases.jsonl``.
    """

    id: str
    inputs: dict[str, Any]
    expected: Any
    slice: str = ""
    line: int = 0

    @property
    def digest(self) -> Digest:
        """Digest of inputs and expectation: equal digests ask and expect the same."""
        return digest_json({"inputs": self.inputs, "expected": self.expected})


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Cases with the scorers that judge them.

    Attributes:
        name: The set's name, which gates and jobs refer to.
        agent: Name of the notebook function that answers; empty where the target is ``job``.
        scorers: What is asked of each answer.
        cases: In the order of the file.
        parameters: Values for the notebook's parameters while it serves cases.
        description: For people.
        slices: What each slice means, for people.
        target: ``agent``: that function answers, in one kernel.  ``job``: the whole notebook does,
            with the inputs as parameters, and what it publishes is the answer.
        trials: How often each case is asked.
        concurrency: How many cases are under way at a time; decides nothing.
        kernels: How many kernels answer, where the target is an agent; decides nothing.
    """

    name: str
    agent: str
    scorers: tuple[Scorer, ...]
    cases: tuple[Case, ...]
    parameters: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    slices: dict[str, str] = field(default_factory=dict)
    target: str = "agent"
    trials: int = 1
    concurrency: int = 1
    kernels: int = 1

    @classmethod
    def load(cls, folder: Path) -> EvaluationSet:
        """Read a set.

        Raises:
            InvalidFile: The two files have faults; all are named, cases with their line.
            NotFound: A file is missing.
        """
        faults: list[Fault] = []
        header = _read_header(folder, faults)
        scorers = header.made_scorers(folder, faults) if header else ()
        slices = header.slices if header else {}
        cases = read_cases(folder, header.cases if header else "cases.jsonl", faults)
        faults.extend(_case_faults(cases, scorers, slices))
        if faults or header is None:
            raise InvalidFile.of(str(folder), faults)
        return cls(
            name=header.name,
            agent=header.agent,
            scorers=scorers,
            cases=tuple(cases),
            parameters=header.parameters,
            description=header.description,
            slices=slices,
            target=header.target,
            trials=header.trials,
            concurrency=header.concurrency,
            kernels=header.kernels,
        )

    @property
    def digest(self) -> Digest:
        """Digest over what decides a result.

        Texts for people, the order of cases and the layout of the files do not change it.
        """
        return digest_json(
            {
                "schema": "evaluation/1",
                "name": self.name,
                "agent": self.agent,
                "parameters": self.parameters,
                "scorers": sorted(
                    (scorer.to_json() for scorer in self.scorers), key=lambda s: str(s["name"])
                ),
                "cases": [
                    [case.id, case.digest, case.slice]
                    for case in sorted(self.cases, key=lambda case: case.id)
                ],
                # Only where they say something, so that digests of older sets stay as they are.
                **({"target": self.target} if self.target != "agent" else {}),
                **({"trials": self.trials} if self.trials != 1 else {}),
            }
        )

    def inputs(self) -> list[tuple[str, dict[str, Any]]]:
        """Return ``(question, inputs)`` of every trial of every case: all that may reach a kernel.

        A question is the case's id, and ``<id>#2``, ``<id>#3`` … for its further trials.
        """
        return [
            (question, case.inputs) for case in self.cases for question in self.questions(case.id)
        ]

    def questions(self, case_id: str) -> list[str]:
        """Return how the trials of a case are called where they are asked."""
        return [question_of(case_id, trial) for trial in range(1, self.trials + 1)]


def question_of(case_id: str, trial: int) -> str:
    """Return how one trial of a case, from 1 on, is called where it is asked."""
    return case_id if trial == 1 else f"{case_id}#{trial}"


class _Header(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)

    schema_: Annotated[Literal["evaluation/1"], Field(alias="schema")]
    name: str
    agent: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")] = ""
    target: Literal["agent", "job"] = "agent"
    trials: Annotated[int, Field(ge=1, le=100)] = 1
    concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    kernels: Annotated[int, Field(ge=1, le=16)] = 1
    scorers: Annotated[list[ScorerEntry], Field(min_length=1)]
    description: str = ""
    parameters: dict[str, Any] = {}
    cases: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "cases.jsonl"
    slices: dict[str, str] = {}

    @model_validator(mode="after")
    def _answered(self) -> _Header:
        if (self.target == "agent") != bool(self.agent):
            raise ValueError(
                "agent is missing: the notebook's function that answers"
                if self.target == "agent"
                else "target is job, so the whole notebook answers; take agent out"
            )
        return self

    def made_scorers(self, folder: Path, faults: list[Fault]) -> tuple[Scorer, ...]:
        return tuple(entry.made(folder, faults) for entry in self.scorers)


def _read_header(folder: Path, faults: list[Fault]) -> _Header | None:
    path = folder / "set.yaml"
    document = read_document(path, faults)
    if document is None:
        return None
    try:
        header = _Header.model_validate(document.value)
    except ValidationError as error:
        faults.extend(model_faults(error, document))
        return None
    faults.extend(_header_faults(header, folder, document))
    return header


def _header_faults(header: _Header, folder: Path, document: YamlDocument) -> Iterator[Fault]:
    try:
        check_name(header.name, "set name")
    except UsageError as error:
        yield Fault(document.place(("name",)), error.message, error.next_step)
    if header.name != folder.resolve().name:
        yield Fault(
            document.place(("name",)),
            f"is {header.name!r} in a folder named {folder.resolve().name!r}",
            "name the folder after the set",
        )
    names = [entry.name for entry in header.scorers]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield Fault(document.place(("scorers",)), f"two scorers are named {name!r}")
    for parameter in header.parameters:
        try:
            check_parameter_name(parameter)
        except UsageError as error:
            yield Fault(document.place(("parameters", parameter)), error.message, error.next_step)
    try:
        canonical_bytes(header.parameters)
    except ValueError as error:
        yield Fault(
            document.place(("parameters",)), str(error), "quote dates and other special values"
        )


def read_cases(folder: Path, name: str, faults: list[Fault]) -> list[Case]:
    """Return the cases of a file, and add every fault with its line.

    Raises:
        NotFound: There is no such file.
    """
    text = read_text(folder / name, faults)
    if text is None:
        return []
    cases: list[Case] = []
    first: dict[str, int] = {}
    # Only "\n" ends a line: JSON texts may hold U+2028, at which str.splitlines would cut.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        case = _read_case(line, number, place, faults)
        if case is None:
            continue
        if case.id in first:
            faults.append(Fault(place, f"the id {case.id!r} is already in line {first[case.id]}"))
            continue
        first[case.id] = number
        cases.append(case)
    if not cases and not faults:
        faults.append(Fault(name, "holds no case", "add at least one line"))
    return cases


def _read_case(line: str, number: int, place: str, faults: list[Fault]) -> Case | None:
    try:
        value = parse_json_line(line)
    except ValueError as error:
        faults.append(Fault(place, str(error)))
        return None
    if not isinstance(value, dict):
        faults.append(Fault(place, "must be a JSON object with id, inputs and expected"))
        return None
    found = list(_shape_faults(value, place))
    if found:
        faults.extend(found)
        return None
    return Case(value["id"], value["inputs"], value.get("expected"), value.get("slice", ""), number)


def _shape_faults(value: dict[str, Any], place: str) -> Iterator[Fault]:
    unknown = sorted(set(value) - _MEMBERS)
    if unknown:
        yield Fault(place, f"has the unknown member {', '.join(map(repr, unknown))}")
    case_id, inputs = value.get("id"), value.get("inputs")
    if not isinstance(case_id, str) or not _CASE_ID.fullmatch(case_id):
        yield Fault(
            place,
            f"the id {case_id!a} is not valid",
            "use letters, digits and . _ : / @ + -, at most 128 characters",
        )
    if not isinstance(inputs, dict):
        yield Fault(place, "inputs must be an object: the agent's arguments by name")
    else:
        for name in inputs:
            if not name.isidentifier():
                yield Fault(place, f"the input {name!a} cannot be an argument's name")
    if not isinstance(value.get("slice", ""), str):
        yield Fault(place, "slice must be text")
    try:
        canonical_bytes(value)
    except (ValueError, UnicodeError) as error:
        yield Fault(place, str(error))


def _case_faults(
    cases: list[Case], scorers: tuple[Scorer, ...], slices: dict[str, str]
) -> Iterator[Fault]:
    for case in cases:
        place = f"cases.jsonl:{case.line}"
        for scorer in scorers:
            fault = scorer.fault_in(case.expected)
            if fault:
                yield Fault(place, fault)
        if slices and case.slice not in slices:
            yield Fault(
                place,
                f"the slice {case.slice!r} is not declared",
                f"use one of {', '.join(sorted(slices))}, or declare it in set.yaml",
            )
