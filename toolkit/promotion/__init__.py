"""May it ship: check → lock → reproduce → rehearse → evaluate → simulate → seal → alias.

Rules
-----
* The notebook is never believed: stages use what the checker read, what nbval compared, what the
  ledger recorded and what the evaluator computed.
* A notebook with errors in the static check is not executed.  After that every stage runs, so
  that one attempt tells every finding.
* Findings of the static check may be waived until a day (docs/waivers.md); which waivers were used
  is in the version's evidence, in its report and in the audit log.
* What is rehearsed, evaluated and sealed are the same normalised bytes, in the same environment:
  the locked one where the notebook declares its dependencies.
* What was measured before on the same content is not measured again (:mod:`.recall`): the audit log
  says which run it was, and only the ledger's own verified records of that run are used.
* Scorers of a set that are programs or MLflow's never see the candidate's kernel, nor it them; judges
  ask through the gateway as a run of their own, and none is asked twice about the same.
* Labels are not for the candidate's kernel: an attempt on their files that its kernel was seen to make
  ends the promotion, whatever the scores (:mod:`.labels`).
* Whoever promotes does not choose the gate: a job's own sets, and those that its version in production was
  evaluated on, are always asked, as far as the policy has gates for them (:mod:`.choosing`).
* A version is compared with the one in production, or with the last that stood there and is not revoked
  (:mod:`.production`), under the same scorers (:mod:`.restating`); what of a set, its scorers and limits
  changed since is told to whoever approves (:mod:`.standards`).
* An attempt is in the audit log before its first case is asked, and is counted from there: the same
  content is one attempt, and only other code that is let into production starts a new series
  (:mod:`.counting`).
* Asking ends early only where the policy says so of every gate of the set (:mod:`.early`).
* What passed is sealed, then recorded as accepted, then let in (:mod:`.landing`): nothing is in
  production without its record, and the same promotion said again completes what a crash left.
* Where the policy is another than the one that the version in production was promoted under, the
  job's recorded calls are decided again: one that would be denied now refuses the promotion unless
  it is waived (:mod:`.simulating`).
* The report tells what changed since the version in production: cells, parameters, environment, policy,
  tools, sets, cost and time, and each set's gates and cases.  MLflow gets it as an artifact.
* An approval binds all evaluation sets; the tool catalog is sealed with the version.
* A refusal is a result: it is recorded in the audit log like a success.
* MLflow shows promotions but decides nothing: when it is down the verdict stands, with a warning.

Known limits: a notebook that declares no dependencies has the toolkit's own environment, recorded,
not locked.  In an unsigned registry people are who the settings say they are (docs/trust.md).
"""

from __future__ import annotations

from toolkit.promotion.before import case_measures
from toolkit.promotion.check import Waivers
from toolkit.promotion.checking import catalog_of, checked, is_budgeted
from toolkit.promotion.evidence import stage_json
from toolkit.promotion.measuring import together
from toolkit.promotion.pipeline import Promoter, Wanted, job_name
from toolkit.promotion.simulating import KINDS, JobHistory
from toolkit.promotion.stages import Promotion, Stage

__all__ = [
    "KINDS",
    "JobHistory",
    "Promoter",
    "Promotion",
    "Stage",
    "Waivers",
    "Wanted",
    "case_measures",
    "catalog_of",
    "checked",
    "is_budgeted",
    "job_name",
    "stage_json",
    "together",
]
