"""Every error of the toolkit, one tree.

    ToolkitError
    ├── UsageError                the command was called wrongly                       exit 2
    ├── ConfigurationError        a file, version or setting is wrong                  exit 78
    │   ├── InvalidFile           one file, all its faults at once
    │   ├── NotFound              a job, version, run, route or file that is not there
    │   └── IntegrityError        bytes on disk differ from their recorded digest
    ├── InfrastructureError       try again later                                      exit 75
    │   ├── ApprovalPending       a person has not decided yet; the same call may be sent again
    │   ├── GatewayUnavailable    the gateway cannot be reached or started
    │   ├── LedgerError           the ledger cannot record (calls fail closed)
    │   ├── TrackingError         MLflow cannot be reached (fails open)
    │   ├── EngineError           the queue or scheduler cannot be reached
    │   └── ProviderError         a model provider failed
    ├── CallError                 a call did not succeed                               exit 1
    │   ├── CallDenied            policy said no
    │   ├── BudgetExceeded        the budget does not cover the call
    │   ├── CallInDoubt           recorded intent, no recorded outcome, not repeatable
    │   ├── Diverged              a resumed run asks for another write than before
    │   ├── InvalidAnswer         the answer does not fit what was asked for
    │   ├── JobFailed             a job that a notebook ran did not succeed
    │   └── ToolFailed            a tool or agent function raised
    ├── NotebookRejected          a notebook or a gate failed                          exit 1
    ├── Interrupted               a signal ended it; nothing further was begun         exit 143
    └── Conflict                  somebody else was first, and it stands               exit 2
        └── Busy                  somebody else is at it; try again later              exit 75

Rules
-----
* ``str(error)`` is one sentence that names the cause; ``where`` names the place; ``next_step``
  tells the reader what to do.  Command line and notebook render the three, never a traceback.
* Errors carry fields, survive ``pickle`` and ``copy``, and never hold a secret.
* A vendor's error crosses into this tree in exactly one place per vendor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

__all__ = [
    "ApprovalPending",
    "BudgetExceeded",
    "Busy",
    "CallDenied",
    "CallError",
    "CallInDoubt",
    "ConfigurationError",
    "Conflict",
    "Diverged",
    "EngineError",
    "Fault",
    "GatewayUnavailable",
    "InfrastructureError",
    "IntegrityError",
    "Interrupted",
    "InvalidAnswer",
    "InvalidFile",
    "JobFailed",
    "LedgerError",
    "NotFound",
    "NotebookRejected",
    "ProviderError",
    "ToolFailed",
    "ToolkitError",
    "TrackingError",
    "UsageError",
    "error_from_json",
    "is_infrastructure",
]


class ToolkitError(Exception):
    """Base of every error that a user may see.

    Args:
        message: One sentence: what went wrong and why.
        where: The place, as a person would say it (``registry/models.yaml: routes.default``).
        next_step: What to do about it, a command where there is one.
        details: Facts for ``--json`` output; JSON values only.
    """

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "error"

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        next_step: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.next_step = next_step
        self.details: dict[str, Any] = dict(details or {})

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.to_json())

    def to_json(self) -> dict[str, Any]:
        """Return the error as JSON values; :func:`error_from_json` is its inverse."""
        return {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "next_step": self.next_step,
            "details": self.details,
        }


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file.

    Attributes:
        where: Dotted path or line inside the file (``routes.default.provider``).
        message: What is wrong, one sentence.
        next_step: The fix.
    """

    where: str
    message: str
    next_step: str | None = None


class UsageError(ToolkitError):
    """The command or function was called wrongly."""

    exit_code = 2
    code = "usage"


class ConfigurationError(ToolkitError):
    """A file, version or setting is wrong; repeating the command will not help."""

    exit_code = 78
    code = "configuration"


class InvalidFile(ConfigurationError):
    """One file with every fault that was found in it."""

    code = "invalid_file"

    @classmethod
    def of(cls, path: str, faults: list[Fault]) -> InvalidFile:
        """Build the error for ``path`` from at least one fault."""
        lines = [f"{fault.where}: {fault.message}" for fault in faults]
        steps = [fault.next_step for fault in faults if fault.next_step]
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        return cls(
            f"{path} has {count}:\n  " + "\n  ".join(lines),
            where=path,
            next_step="; ".join(dict.fromkeys(steps)) or None,
            details={
                "faults": [
                    {"where": f.where, "message": f.message, "next_step": f.next_step}
                    for f in faults
                ]
            },
        )


class NotFound(ConfigurationError):
    """A job, version, run, route or file that is not there."""

    code = "not_found"


class IntegrityError(ConfigurationError):
    """Bytes on disk differ from the digest that was recorded for them."""

    code = "integrity"


class InfrastructureError(ToolkitError):
    """Something outside the notebook failed; the same command may succeed later."""

    exit_code = 75
    code = "infrastructure"


class ApprovalPending(InfrastructureError):
    """A person has to decide about the call first; ``details["approval"]`` says who and until when.

    Nothing is lost by it: the request is stored, and the same call finds the decision.
    """

    code = "approval_pending"


class GatewayUnavailable(InfrastructureError):
    """The gateway cannot be reached or started."""

    code = "gateway_unavailable"


class LedgerError(InfrastructureError):
    """The ledger cannot record, so no call is made."""

    code = "ledger"


class TrackingError(InfrastructureError):
    """MLflow cannot be reached; calls go on and are shipped later."""

    code = "tracking"


class EngineError(InfrastructureError):
    """The queue or the scheduler cannot be reached."""

    code = "engine"


class ProviderError(InfrastructureError):
    """A model provider failed; ``details["kind"]`` says how (timeout, status, connection, …)."""

    code = "provider"


class CallError(ToolkitError):
    """A governed call did not succeed."""

    code = "call"


class CallDenied(CallError):
    """Policy said no; ``details["policies"]`` names the policies that decided."""

    code = "denied"


class BudgetExceeded(CallError):
    """The budget does not cover the worst case of the call."""

    code = "budget"


class CallInDoubt(CallError):
    """An earlier attempt was started and never recorded its outcome, and may not be repeated."""

    code = "in_doubt"


class Diverged(CallError):
    """A run that started again asks for another write than before; ``details`` says what differs."""

    code = "diverged"


class InvalidAnswer(CallError):
    """The answer does not fit the schema that was asked for."""

    code = "invalid_answer"


class JobFailed(CallError):
    """A job that was called did not succeed.

    ``details``: ``run_id``, ``job``, ``version``, ``state``, ``cause``.
    """

    code = "job_failed"


class ToolFailed(CallError):
    """A tool or agent function raised."""

    code = "tool_failed"


class NotebookRejected(ToolkitError):
    """A notebook failed a check, a rehearsal or a gate."""

    code = "rejected"


class Interrupted(ToolkitError):
    """A signal (Ctrl-C, SIGTERM) ended what was under way, and nothing further was begun."""

    exit_code = 143
    code = "interrupted"


class Conflict(ToolkitError):
    """Somebody else was first, and it stands: repeating the command will not help."""

    exit_code = 2
    code = "conflict"


class Busy(Conflict):
    """Somebody else is at it now, or was a moment ago; the same command may succeed later."""

    exit_code = 75
    code = "busy"


def _tree(root: type[ToolkitError]) -> dict[str, type[ToolkitError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        found.update(_tree(child))
    return found


def error_from_json(body: dict[str, Any]) -> ToolkitError:
    """Rebuild an error that :meth:`ToolkitError.to_json` wrote (the gateway's replies)."""
    kind = _tree(ToolkitError).get(str(body.get("code")), ToolkitError)
    return _rebuild(kind, body)


def is_infrastructure(body: dict[str, Any] | None) -> bool:
    """Whether an error that :meth:`ToolkitError.to_json` wrote is of what may be back later."""
    kind = _tree(ToolkitError).get(str((body or {}).get("code")), ToolkitError)
    return issubclass(kind, InfrastructureError)


def _rebuild(kind: type[ToolkitError], body: dict[str, Any]) -> ToolkitError:
    return kind(
        str(body.get("message", "unknown error")),
        where=body.get("where"),
        next_step=body.get("next_step"),
        details=body.get("details") or {},
    )
