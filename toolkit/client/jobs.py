"""Other jobs, run by this notebook: each is a run of its own, started and recorded by the gateway.

A call of a job is a call like any other.  It is decided, it is in the journal, and a notebook that
starts again finds the answer there; a job that is still under way is waited for, not started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any

from toolkit.client import approvals, wire
from toolkit.client.codec import encode
from toolkit.client.connection import Connection, current
from toolkit.client.remote import RemoteTool
from toolkit.errors import ToolkitError, error_from_json
from toolkit.values import CallKind, Effect, JobRef

__all__ = ["Job", "JobResult", "JobTool", "job"]

SELECTOR = "@"
"""The argument that names a version or an alias; no parameter can have this name."""

_AT_ONCE = 64
_places = threading.BoundedSemaphore(_AT_ONCE)


class JobResult(dict[str, Any]):
    """What a job published, by name.

    Attributes:
        run_id: The run that published it.
        job, version: What ran.
    """

    def __init__(self, results: dict[str, Any], *, run_id: str, job: str, version: int) -> None:
        super().__init__(results)
        self.run_id = run_id
        self.job = job
        self.version = version


class Job:
    """A registered job that a notebook may run; see :func:`job`."""

    def __init__(self, reference: str) -> None:
        parsed = JobRef.parse(reference)
        self.name = parsed.name
        selector = parsed.selector
        self.selector = None if selector in (None, "production") else selector
        self._described: dict[str, Any] | None = None

    async def run(self, /, **parameters: Any) -> JobResult:
        """Run the job and return its results, without blocking the event loop.

        At most 64 jobs of one notebook are waited for at a time; more wait for their turn.
        Cancelling the task cancels the job.

        Raises:
            CallDenied, BudgetExceeded: Policy or budget said no.
            JobFailed: It ended otherwise than with success; ``details`` has ``run_id``, ``state``
                and ``cause``.
            NotFound, UsageError: There is no such job or version, or the parameters do not fit.
        """
        connection, request = self._request(parameters)
        try:
            reply = await _in_thread(lambda: self._send(connection, request))
        except asyncio.CancelledError:
            await asyncio.shield(_in_thread(lambda: _cancel(connection, request)))
            raise
        return _result(reply)

    def call(self, /, **parameters: Any) -> JobResult:
        """Run the job and return its results; see :meth:`run`.  Interrupting the cell cancels it."""
        connection, request = self._request(parameters)
        try:
            return _result(self._send(connection, request))
        except KeyboardInterrupt:
            _cancel(connection, request)
            raise

    def as_tool(self) -> JobTool:
        """Return the job as a tool that stands in ``toolkit.model(tools=[…])``."""
        return JobTool(self)

    def describe(self) -> dict[str, Any]:
        """Return ``name``, ``version``, ``description``, ``parameters`` (JSON Schema), ``results``.

        Raises:
            NotFound: There is no such job or version.
        """
        if self._described is None:
            self._described = current().query(wire.JOBS, {"name": self.name, **self._chosen()})
        return self._described

    def _chosen(self) -> dict[str, str]:
        return {} if self.selector is None else {SELECTOR: self.selector}

    def _request(self, parameters: dict[str, Any]) -> tuple[Connection, dict[str, Any]]:
        """Name the call where it is made: which occurrence it is must not depend on threads."""
        connection = current()
        given = {name: encode(v, f"{self.name}({name})") for name, v in parameters.items()}
        arguments = {**given, **self._chosen()}
        request = connection.identify(CallKind.JOB, self.name, arguments, effect=Effect.WRITE.value)
        return connection, request

    def _send(self, connection: Connection, request: dict[str, Any]) -> dict[str, Any]:
        reply = approvals.call(connection, wire.JOB, request)
        connection.announce(reply, CallKind.JOB, self.name)
        return reply

    def __repr__(self) -> str:
        chosen = "" if self.selector is None else f"@{self.selector}"
        return f"toolkit.job({self.name + chosen!r})"


class JobTool(RemoteTool):
    """A job that a model may call, described by the parameters of its sealed version."""

    def __init__(self, target: Job) -> None:
        super().__init__(target.name)
        self._job = target

    def __call__(self, /, **arguments: Any) -> Any:
        """Run the job and return its results as JSON values; see :meth:`Job.run`."""
        return dict(self._job.call(**arguments))

    async def acall(self, /, **arguments: Any) -> Any:
        """Run the job without blocking the event loop."""
        return dict(await self._job.run(**arguments))

    def _describe(self) -> dict[str, Any]:
        return self._job.describe()

    def __repr__(self) -> str:
        return f"{self._job!r}.as_tool()"


def job(reference: str) -> Job:
    """Return a registered job, to be run from this notebook.

    Examples::

        check = toolkit.job("kyc-check")
        first, second = await asyncio.gather(check.run(customer=1), check.run(customer=2))

    Args:
        reference: ``name``, ``name@3`` or ``name@alias``; without one, the version that
            ``production`` points to when the call is first made.  Nothing is asked before.

    Raises:
        UsageError: It is not a reference.
    """
    return Job(reference)


def _result(reply: dict[str, Any]) -> JobResult:
    outcome = reply["outcome"]
    if outcome["state"] != "ok":
        raise error_from_json(outcome["error"] or {})
    answer = outcome["answer"]
    return JobResult(
        answer["results"], run_id=answer["run_id"], job=answer["job"], version=answer["version"]
    )


def _cancel(connection: Connection, request: dict[str, Any]) -> None:
    with contextlib.suppress(ToolkitError):  # it may have ended, or never have begun
        connection.post(wire.JOB_CANCEL, request)


async def _in_thread(work: Callable[[], Any]) -> Any:
    """Like ``asyncio.to_thread``, whose few threads would be taken by jobs that run for hours."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def settle(value: Any, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(value)
        else:
            done.set_exception(error)

    def body() -> None:
        value, failed = None, None
        with _places:
            try:
                value = context.run(work)
            except BaseException as error:  # noqa: BLE001 - handed to who waits
                failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended, nobody waits
            loop.call_soon_threadsafe(settle, value, failed)

    threading.Thread(target=body, name="toolkit job", daemon=True).start()
    return await done
