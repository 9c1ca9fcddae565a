"""Answers about calls, read by the second verifier's parts: apart from ``toolkit.trust``."""

from __future__ import annotations

import contextlib
from pathlib import Path

from second_verifier import MEMBERS, envelope, need, people_who_signed, roots, said

MEMBERS["call-answer"] = (
    "environment approval run call generation digest choice arguments_digest role "
    "reason_digest person issued"
)


def decide_answer(registry: Path, data: bytes, approval: str) -> str | None:
    """Return who signed an answer, by the root as it is; ``None``: it does not count."""
    with contextlib.suppress(Exception):
        root, _, keys = roots(registry / "trust")
        signed = envelope(data)
        people = people_who_signed(signed, keys)
        told, subjects = said(signed[0], "call-answer")
        need(told["approval"] == approval, "another request")
        need(subjects == {approval: told["digest"]}, "another subject")
        need(len(signed[1]) == 1 and people == {told["person"]}, "signed by somebody else")
        need(told["person"] in root["people"], "nobody of the root")
        return str(told["person"])
    return None
