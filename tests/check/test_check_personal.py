"""Personal data in every part of a notebook, and secrets in attachments."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from toolkit.promotion.check import CheckCatalog, Report, Severity

ADDRESS = "maria.lopez" + "@acme-mail.com"
KEY = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b2C"


def everywhere(text: str) -> list[Any]:
    """One text in a source, an output, an attachment (twice) and metadata."""
    encoded = base64.b64encode(f"a file with {text} in it".encode()).decode()
    return [
        f"x = 1\ncontact = '{text}'",
        {
            "source": "y = 1",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": f"got {text}\n"}],
        },
        {
            "cell_type": "markdown",
            "source": "see file",
            "attachments": {
                "a.txt": {"text/plain": encoded},
                "b.svg": {"image/svg+xml": f"<text>{text}</text>"},
            },
        },
        {"source": "z = 1", "metadata": {"note": {"by": [text]}}},
    ]


PLACES = [("source", 3, 2), ("output", 4, None), ("attachment", 5, None), ("metadata", 6, None)]


def test_personal_data_is_found_in_every_part(check: Callable[..., Report]) -> None:
    """A warning with kind and place, never the address."""
    report = check(*everywhere(ADDRESS))
    assert [(f.rule, f.cell, f.line) for f in report.findings] == [
        (f"personal-data-in-{part}", cell, line) for part, cell, line in PLACES
    ]
    assert report.ok
    assert all("(e-mail address)" in f.message for f in report.findings)
    assert ADDRESS not in json.dumps(report.to_json()) + repr(report)


def test_policy_makes_it_an_error(check: Callable[..., Report], catalog: CheckCatalog) -> None:
    """Where calls are cleaned of personal data, a version may not hold any."""
    report = check(*everywhere(ADDRESS), catalog=replace(catalog, personal_data=Severity.ERROR))
    assert len(report.errors) == len(PLACES)


def test_secrets_in_attachments_are_errors(check: Callable[..., Report]) -> None:
    """Encoded or as they are; whatever policy says."""
    report = check(*everywhere(KEY))
    assert [(f.rule, f.cell, f.line) for f in report.errors] == [
        (f"secret-in-{part}", cell, line) for part, cell, line in PLACES
    ]
    assert KEY not in json.dumps(report.to_json())


@pytest.mark.parametrize("mime", ["image/png", "application/pdf"])
def test_pictures_in_attachments_are_not_searched(mime: str, check: Callable[..., Report]) -> None:
    """Bytes of a picture hold every short form by chance."""
    bundle = {"a": {mime: KEY}}
    cell = {"cell_type": "markdown", "source": "see", "attachments": bundle}
    assert check(cell).findings == ()
