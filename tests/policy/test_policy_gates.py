"""Gates as they are written in ``policy.yaml``."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from toolkit.policy.gate_file import GateEntry
from toolkit.policy.types import Gate


@pytest.mark.parametrize(
    ("written", "gate"),
    [
        ({"minimum": 0.8}, Gate("s", 0.8)),
        ({"minimum": 0.8, "confidence": "none"}, Gate("s", 0.8)),
        ({"minimum": 1, "confidence": 0.9}, Gate("s", 1.0, confidence=0.9)),
        ({"superior_to": "production"}, Gate("s", confidence=0.95, superior_to="production")),
        (
            {"non_inferior_to": "production", "margin": 0.02, "confidence": 0.9},
            Gate("s", confidence=0.9, non_inferior_to="production", margin=0.02),
        ),
        (
            {"minimum": 0.5, "confidence": 0.95, "pass_hat_k": 3, "slice": "*"},
            Gate("s", 0.5, confidence=0.95, pass_hat_k=3, slice="*"),
        ),
        ({"maximum": 2, "statistic": "p95"}, Gate("s", maximum=2.0, statistic="p95")),
    ],
)
def test_a_gate_is_read_as_it_is_meant(written, gate):
    """Every form; a gate without a confidence compares the plain mean, as before."""
    assert GateEntry.model_validate({"scorer": "s", **written}).gate() == gate


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ({}, "could never fail"),
        ({"minimum": 2, "maximum": 1}, "could never pass"),
        ({"minimum": 0.5, "superior_to": "production"}, "write two gates"),
        ({"non_inferior_to": "production"}, "needs a margin"),
        ({"minimum": 0.5, "margin": 0.1}, "needs a margin"),
        ({"superior_to": "production", "confidence": "none"}, "without a confidence"),
        ({"minimum": 0.5, "sequential": True}, "needs a confidence"),
        ({"minimum": 0.5, "confidence": 0.4}, "0.5"),
        ({"minimum": 0.5, "confidence": 95}, "0.9999"),
        ({"minimum": 0.5, "confidence": 0.9, "statistic": "p95", "method": "t"}, "p95"),
    ],
)
def test_a_gate_without_sense_is_refused(written, words):
    """What could never fail, never pass, or means two things."""
    with pytest.raises(ValidationError, match=words):
        GateEntry.model_validate({"scorer": "s", **written})
