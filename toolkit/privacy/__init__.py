"""Which secrets and personal data are in a value, and the value without them.

Rules
-----
* Nothing that was found is in a finding, a message, a log or a ``repr``: kinds and places only.
* Known values come first: they are found in every usual encoding and split in pieces, and always go.
* What merely looks like a secret goes too; what is about a person is labelled, or goes if so set.
* The same secret in the same run gives the same placeholder, and a placeholder is not found again.
* Work is linear in the text, whatever the text is: no pattern can be made to backtrack over it.
* A check digit is checked where the format has one; a format without one needs a telling context.
"""

from __future__ import annotations

from toolkit.privacy.checks import drawn, entropy
from toolkit.privacy.detector import Detector
from toolkit.privacy.findings import Category, Finding, Spotted
from toolkit.privacy.known import KnownSecrets
from toolkit.privacy.names import is_secret_name, is_secret_value
from toolkit.privacy.redactor import PiiMode, Redacted, Redactor

__all__ = [
    "Category",
    "Detector",
    "Finding",
    "KnownSecrets",
    "PiiMode",
    "Redacted",
    "Redactor",
    "Spotted",
    "drawn",
    "entropy",
    "is_secret_name",
    "is_secret_value",
]
