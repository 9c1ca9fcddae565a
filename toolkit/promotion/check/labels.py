"""Paths, written out in code, that lead to the files of evaluation sets."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from toolkit.client import is_label_file
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_UNKNOWN = "*"
_JOINERS = frozenset(["os.path.join", "posixpath.join", "pathlib.Path", "pathlib.PurePath"])


def _paths(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        nodes = list(subject.names.nodes(cell))
        documentation = {
            id(node.value)
            for node in nodes
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        lines: set[int] = set()
        for node in nodes:
            if not isinstance(node, ast.expr) or id(node) in documentation:
                continue
            if node.lineno not in lines and is_label_file(_text(subject, node)):
                lines.add(node.lineno)
                yield Hit("a path leads to the files of an evaluation set", cell, node.lineno)


def _text(subject: Subject, node: ast.expr) -> str:
    """Return the path that an expression makes, with ``*`` for what is not written out."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.FormattedValue):
        return _text(subject, node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(subject, part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Add):
        between = "/" if isinstance(node.op, ast.Div) else ""
        return f"{_text(subject, node.left)}{between}{_text(subject, node.right)}"
    if isinstance(node, ast.Call):
        joined = [_text(subject, part) for part in node.args]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "joinpath":
            return "/".join([_text(subject, node.func.value), *joined])
        if subject.names.dotted(node.func) in _JOINERS:
            return "/".join(joined)
    return _UNKNOWN


RULES = (
    Rule(
        "evaluation-labels",
        Severity.ERROR,
        "an agent that has seen what is expected proves nothing; a job's kernel is refused these"
        " files, and an attempt ends the promotion",
        "take the path out; a case's inputs are the agent's arguments",
        _paths,
    ),
)
