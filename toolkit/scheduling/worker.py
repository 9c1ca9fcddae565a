"""Takes work from the queue and runs each piece as one subprocess."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from toolkit.errors import Busy, EngineError
from toolkit.scheduling.attempts import Attempts, Why
from toolkit.scheduling.beside import tending
from toolkit.scheduling.duty import Duty
from toolkit.scheduling.engine import Engine
from toolkit.scheduling.hosts import Hosting, make_children
from toolkit.scheduling.intake import Intake, serving
from toolkit.scheduling.jobs import NO_JOBS, Jobs, spaced_retries
from toolkit.scheduling.leases import Leases
from toolkit.scheduling.vendor import (
    APP,
    CONTROL_QUEUE,
    RUN_QUEUE,
    VERSION,
    clean_url,
    engine_errors,
    forward_log,
    hand_back,
    prepare,
    recover,
    sqlite_path,
)
from toolkit.scheduling.work import (
    EventKind,
    Outcome,
    Work,
    WorkerEvent,
    cause_of_exit,
    state_of_exit,
)
from toolkit.scheduling.workflows import register

__all__ = ["Worker"]

_RUN_POLL_S = 0.2
_CONTROL_POLL_S = 0.5
_WATCH_S = 0.2
_FENCED_EXIT = 75
_CANCELLED = 143
# How often a worker looks at clock and triggers.
_DUTY_S = 0.5


class Worker:
    """One worker of a process: DBOS allows no second one at the same time.

    Args:
        url: The engine's database.
        root: The workspace: working folder of every run.
        slots: Runs at a time.  The number lives in the database: of several workers the one
            that starts last sets it for all.
        command: Makes the argv for a piece of work; it must pass ``--run-id``.
        on_event: Told what happens, from several threads; it must not raise.
        lease_s: Seconds after which a worker that is not heard of is taken for dead.
        retry_delay_s: Seconds before the first retry where a job says nothing; the rest of
            that rule is :data:`toolkit.scheduling.DEFAULT_RETRIES`.
        grace_s: Seconds that running work has to end when the worker is stopped.
        term_s: Seconds that a cancelled run has between SIGTERM and SIGKILL.
        logs: Folder of the runs' output, ``.toolkit/logs`` below ``root`` if left out.
        on_ended: Told, in a thread, how work ended; what it returns is what the queue records.
        why: Says why a process ended; the exit code alone knows less.
        cancel: Cancels a run that a later tick of its schedule replaces; ``None``: in the queue.
        tend: Called in a thread of its own every ``tend_s`` seconds: what nobody else looks after.
        jobs: Returns the settings of jobs.
        overtime_s: A run whose job limits it is ended so long after that limit, should it not
            have ended itself.
        standby: On SQLite, wait for another worker to be gone instead of giving up.
        housekeep: Called once an hour by one of the workers.
        listen: Loopback address for signed events, ``127.0.0.1:8790``; ``None``: none.
        hosting: Which commands start as forks of a prepared process; ``None``: none.
    """

    def __init__(
        self,
        url: str,
        root: Path,
        slots: int,
        command: Callable[[Work], list[str]],
        *,
        on_event: Callable[[WorkerEvent], None] = lambda _: None,
        lease_s: float = 30.0,
        retry_delay_s: float = 1.0,
        grace_s: float = 30.0,
        term_s: float = 10.0,
        logs: Path | None = None,
        on_ended: Callable[[Work, Outcome], Outcome] = lambda _, outcome: outcome,
        why: Why = lambda _work, code, _began: cause_of_exit(code),
        cancel: Callable[[str], object] | None = None,
        tend: Callable[[], object] | None = None,
        tend_s: float = 5.0,
        jobs: Callable[[], Jobs] = lambda: NO_JOBS,
        overtime_s: float = 30.0,
        standby: bool = False,
        housekeep: Callable[[], object] | None = None,
        listen: str | None = None,
        hosting: Hosting | None = None,
    ) -> None:
        self._url = clean_url(url, root)
        self._slots = slots
        self._on_event = on_event
        self._grace_s = grace_s
        self._cancel = cancel
        self._tend = tend
        self._tend_s = tend_s
        self._root = root
        self._jobs = jobs
        self._standby = standby
        self._housekeep = housekeep
        self._listen = listen
        logs = logs or root / ".toolkit" / "logs"
        warn = partial(self._tell, EventKind.WARNING)
        self._children = make_children(root, logs, term_s, hosting, warn)
        # Never used again: a restarted worker must not take over what it cannot know about.
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._lease_s = lease_s
        self._stopping = False
        # Counted by the engine's event loop alone: pieces of work in hand, and those among them
        # that wait to be handed back.
        self._active = 0
        self._parked = 0
        self._tries = Attempts(
            command,
            self._children,
            jobs,
            spaced_retries(retry_delay_s),
            overtime_s,
            self._tell,
            lambda: self._stopping,
            self._park_if_stopping,
            why,
            on_ended,
        )

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set, then end gracefully.

        Ending: no new work; running work has ``grace_s``; what is left is killed as by a crash
        (not asked to end, which would record it as cancelled) and goes back into the queue.

        A worker whose lease is lost kills its children and ends the *process* with code 75: its
        work belongs to somebody else, and threads of the engine could not be stopped reliably.

        Raises:
            EngineError: The database does not answer at the start.
            Conflict: Another worker has the SQLite database.
        """
        warnings = forward_log(lambda text: self._tell(EventKind.WARNING, text))
        with self._exclusive(stop) as mine, warnings:
            if not mine:
                return
            prepare(self._url)
            self._children.prepare()
            leases = Leases(self._url, self.worker_id, self._lease_s)
            try:
                leases.take()
                self._serve(stop, leases)
                with suppress(EngineError):  # it expires by itself
                    leases.drop()
            finally:
                leases.close()
                self._children.close()
        self._tell(EventKind.STOPPED, "stopped")

    # -- life ------------------------------------------------------------------------------

    @contextmanager
    def _exclusive(self, stop: threading.Event) -> Iterator[bool]:
        """On SQLite, be the only worker: its limits do not hold across processes."""
        path = sqlite_path(self._url)
        if path is None:
            yield True
            return
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = FileLock(f"{path}.worker.lock")
        waiting = False
        while not lock.is_locked:
            try:
                lock.acquire(timeout=_WATCH_S if self._standby else 0)
            except Timeout as error:
                if not self._standby:
                    raise Busy(
                        "another worker is using this SQLite database",
                        where=str(path),
                        next_step="stop it, or set engine_url to a PostgreSQL database for many"
                        " workers, or wait for its end: toolkit worker --standby",
                    ) from error
                if stop.is_set():
                    break
                if not waiting:
                    self._tell(EventKind.WARNING, "standing by: another worker is at work")
                waiting = True
        try:
            yield lock.is_locked
        finally:
            lock.release()

    def _serve(self, stop: threading.Event, leases: Leases) -> None:
        from dbos import DBOS, DBOSPortableJSONSerializer

        config = {
            "name": APP,
            "system_database_url": self._url,
            "application_version": VERSION,
            "executor_id": self.worker_id,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
        }
        done = threading.Event()
        try:
            with engine_errors("starting the worker"):
                DBOS(config=config)
                register(self.execute)
                DBOS.launch()
                DBOS.register_queue(
                    RUN_QUEUE,
                    worker_concurrency=self._slots,
                    polling_interval_sec=_RUN_POLL_S,
                    on_conflict="always_update",
                )
                DBOS.register_queue(
                    CONTROL_QUEUE,
                    polling_interval_sec=_CONTROL_POLL_S,
                    on_conflict="always_update",
                )
            keeper = threading.Thread(
                target=self._keep_lease, args=(leases, done), name="lease", daemon=True
            )
            keeper.start()
            self._tell(EventKind.STARTED, f"worker {self.worker_id}, {self._slots} slots")
            with self._beside(leases):
                while not stop.wait(_WATCH_S):
                    self._watch(leases)
            self._drain(leases)
            done.set()
            keeper.join()
        finally:
            done.set()
            DBOS.destroy(destroy_registry=True)

    @contextmanager
    def _beside(self, leases: Leases) -> Iterator[None]:
        """Do what is done beside the work: ticks, triggers, limits, events over HTTP."""
        warn = partial(self._tell, EventKind.WARNING)
        with ExitStack() as stack:
            engine = Engine(self._url, root=self._root, jobs=self._jobs, supersede=self._cancel)
            stack.enter_context(engine)
            duty = Duty(
                engine,
                self._jobs,
                self._on_event,
                lost=lambda: leases.lost,
                housekeep=self._housekeep,
            )
            if self._listen:
                address = stack.enter_context(serving(Intake(engine), self._listen))
                self._tell(EventKind.STARTED, f"events: POST {address}/events/NAME")
            for part in duty.parts:
                stack.enter_context(tending(part, _DUTY_S, warn))
            stack.enter_context(tending(self._tend, self._tend_s, warn))
            yield

    def _keep_lease(self, leases: Leases, done: threading.Event) -> None:
        """Renew the lease and adopt the work of workers that are gone, again and again."""
        while True:
            try:
                # Owners first: a worker writes its lease before it owns anything, so an owner
                # that is read here and has no lease afterwards is dead, not just new.
                owners = set() if self._stopping else _owners()
                alive = leases.renew()
                if alive is None:
                    self._fence("another worker took the lease")
                elif dead := owners - alive:
                    self._adopt(dead, leases)
            except EngineError as error:
                self._tell(EventKind.WARNING, error.message)
            if done.wait(leases.look_s):
                return

    def _adopt(self, dead: set[str], leases: Leases) -> None:
        with engine_errors("adopting orphaned work"):
            count = recover(dead)
        if count:
            silent_s = [leases.silent_s[one] for one in sorted(dead & leases.silent_s.keys())]
            after = f", {max(silent_s):.1f} s after the last sign of life" if silent_s else ""
            self._tell(EventKind.RECOVERED, f"{count} runs of {len(dead)} dead workers{after}")

    def _watch(self, leases: Leases) -> None:
        if leases.lost:
            self._fence(f"the lease could not be renewed for {self._lease_s:g} s")

    def _fence(self, why: str) -> None:
        """Stop being a worker, now: whoever has the work starts it again."""
        self._stopping = True
        self._children.kill_all()
        with suppress(Exception):  # nothing may keep this process alive
            self._tell(EventKind.FENCED, why)
        os._exit(_FENCED_EXIT)

    def _drain(self, leases: Leases) -> None:
        from dbos import DBOS

        self._stopping = True
        self._tell(EventKind.STOPPING, f"{len(self._children)} runs have {self._grace_s:g} s")
        deadline_s = time.monotonic() + self._grace_s
        # It stops the queues at once and then waits for work to end; until it has, work that is
        # handed back below cannot be recorded as failed by the engine's own shutdown.
        wait_s = math.ceil(self._grace_s) + 2
        ending = threading.Thread(
            target=DBOS.destroy,
            kwargs={"workflow_completion_timeout_sec": wait_s, "destroy_registry": True},
            daemon=True,
        )
        ending.start()
        while self._at_work() and time.monotonic() < deadline_s:
            self._pause_of_drain(leases)
        killed = self._children.kill_all()
        while self._at_work():
            self._pause_of_drain(leases)
        if killed:
            self._tell(EventKind.RUN_RELEASED, f"{killed} runs were killed and go back")
        while ending.is_alive():
            # Also what was taken in the very moment of stopping; nothing else is left to own.
            with suppress(EngineError), engine_errors("handing work back"):
                hand_back(self._url, self.worker_id)
                recover([self.worker_id])
            ending.join(_WATCH_S)

    def _at_work(self) -> bool:
        """Whether work is being done that may still end by itself."""
        return self._active > self._parked

    def _pause_of_drain(self, leases: Leases) -> None:
        self._watch(leases)
        time.sleep(_WATCH_S / 4)

    def _tell(
        self,
        kind: EventKind,
        message: str,
        work: Work | None = None,
        code: int | None = None,
    ) -> None:
        state = state_of_exit(code) if kind is EventKind.RUN_ENDED and code is not None else None
        self._on_event(WorkerEvent(kind, message, work, state, code))

    # -- work ------------------------------------------------------------------------------

    async def execute(self, work: Work) -> Outcome:
        """Run one piece of work to its end, retries included.

        It never returns while the worker is stopping and a process was killed because of that:
        such work is handed back, not recorded.
        """
        self._active += 1
        try:
            outcome = await self._tries.run(work)
        except asyncio.CancelledError:
            if not self._stopping:
                self._tell(EventKind.RUN_ENDED, "cancelled", work, _CANCELLED)
            raise
        finally:
            self._active -= 1
        self._tell(EventKind.RUN_ENDED, outcome.message, work, outcome.exit_code)
        return outcome

    async def _park_if_stopping(self) -> None:
        if self._stopping:
            self._parked += 1
            await asyncio.Event().wait()


def _owners() -> set[str]:
    """Ids of the workers that have work in hand, by the database."""
    from dbos import DBOS

    with engine_errors("looking for orphaned work"):
        flows = DBOS.list_workflows(status="PENDING", load_input=False, load_output=False)
    return {str(flow.executor_id) for flow in flows if flow.executor_id}
