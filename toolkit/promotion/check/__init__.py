"""Static checks of a notebook: what would stop or betray a job, found before it runs.

Rules
-----
* A check ends with a report for any file; a file that cannot be read is a report with findings.
* Nothing is executed and nothing but the notebook is read: the registry arrives as a value.
* Every finding has a rule, a place (cell, id, line), a reason and a fix; secrets are never shown.
* A waiver excuses a finding by rule, place, owner, reason and last day; it is recorded wherever it
  is used, and ends by itself.  Secrets and what cannot be read or run cannot be waived.
* Mending changes what a machine can decide and nothing else: no line of code is rewritten.
* Checks are advice for honest authors, not a barrier: the gateway, the sandbox and the signature
  hold against the others.
* In doubt about hidden state, silence; in doubt about secrets, a finding.
"""

from __future__ import annotations

from toolkit.promotion.check.findings import CheckCatalog, Finding, Report, Severity, Waived
from toolkit.promotion.check.formats import to_sarif
from toolkit.promotion.check.mending import Mended, mend, mend_file
from toolkit.promotion.check.rules import Rule
from toolkit.promotion.check.runner import RULES, check_examination, check_notebook
from toolkit.promotion.check.waivers import Waiver, Waivers

__all__ = [
    "RULES",
    "CheckCatalog",
    "Finding",
    "Mended",
    "Report",
    "Rule",
    "Severity",
    "Waived",
    "Waiver",
    "Waivers",
    "check_examination",
    "check_notebook",
    "mend",
    "mend_file",
    "to_sarif",
]
