"""The kernel's side of an evaluation: cases come in, answers go out, labels are never here."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from toolkit.client import wire
from toolkit.client.codec import encode
from toolkit.client.connection import Connection, current
from toolkit.client.functions import case
from toolkit.errors import ToolFailed, ToolkitError

__all__ = ["serve_cases"]

_Item = Future[dict[str, Any] | None]
"""A case that is on its way, or the news that there is none."""


def serve_cases(function: Callable[..., Any], *, concurrency: int = 1) -> int:
    """Answer every case of the running evaluation with ``function``; return how many.

    The kernel sees inputs only.  Labels stay with the evaluator, and what counts is what the
    gateway recorded, not what this process prints.

    Args:
        function: The agent.  An ``async`` one answers several cases on one event loop; any other
            in threads, so it must bear being called from several at once.
        concurrency: How many cases are under way at a time.
    """
    desk = _Desk(current())
    if inspect.iscoroutinefunction(function):
        # A kernel's own event loop is running already, so this one has a thread of its own.
        _in_threads(lambda: asyncio.run(_serve_async(desk, function, concurrency)), 1)
    elif concurrency > 1:
        _in_threads(lambda: _serve(desk, function, 1), concurrency)
    else:
        _serve(desk, function, 2)
    return desk.answered


@dataclass
class _Desk:
    """Hands out cases and takes answers, for several workers of one kernel."""

    connection: Connection
    answered: int = 0
    _under_way: int = 0
    _first: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self) -> dict[str, Any] | None:
        """Return the next case, ``None`` where there is nothing left for this worker."""
        with self._lock:
            item = self.connection.post(wire.NEXT_CASE, {"reset": self._first})
            if item.get("case_id") is None and not self._first and not self._under_way:
                # A case whose reply was lost with its gateway was handed out to nobody: it goes
                # again.  While others are under way nobody can tell; the last worker asks.
                item = self.connection.post(wire.NEXT_CASE, {"reset": True})
            self._first = False
            if item.get("case_id") is None:
                return None
            self._under_way += 1
            return item

    def give(self, case_id: str, answer: dict[str, Any]) -> dict[str, Any] | None:
        """Have an answer recorded, and return the next case as :meth:`take` does."""
        body = {"case_id": case_id, "next": True, **answer}
        item: dict[str, Any] = {}
        try:
            # This case is under way until the next one is known, so nobody resets meanwhile.
            item = self.connection.post(wire.ANSWER_CASE, body).get("next") or {}
        finally:
            with self._lock:
                self.answered += 1
                if item.get("case_id") is None:
                    self._under_way -= 1
        return self.take() if item.get("case_id") is None else item


def _in_threads(work: Callable[[], object], count: int) -> None:
    with ThreadPoolExecutor(count, thread_name_prefix="cases") as pool:
        # Each thread has the caller's context: what a call is made for is said there.
        made = [pool.submit(contextvars.copy_context().run, work) for _ in range(count)]
        for one in made:
            one.result()


def _serve(desk: _Desk, function: Callable[..., Any], held: int) -> None:
    """Answer one case after the other in this thread, while another one fetches and records.

    Where two cases are ``held``, the next one is here when a case is answered, and nobody waits until
    the answer is on the gateway's disk; one that cannot be recorded is told a case later.  Of several
    workers each holds one: none shall keep a case that an idle one could answer.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="desk") as errands:

        def send(work: Callable[..., dict[str, Any] | None], *given: Any) -> _Item:
            return errands.submit(contextvars.copy_context().run, work, *given)

        coming = [send(desk.take) for _ in range(held)]
        try:
            while coming:
                item = coming.pop(0).result()
                if item is None:
                    continue
                try:
                    with case(item["case_id"]):
                        answer = _answer(function(**item["inputs"]))
                except Exception as error:  # noqa: BLE001 - one failed case must not end the evaluation
                    answer = _failure(error)
                coming.append(send(desk.give, item["case_id"], answer))
        except BaseException:
            # An interrupt, or a gateway that is gone: what has not begun would only wait for it again.
            errands.shutdown(wait=False, cancel_futures=True)
            raise


async def _serve_async(desk: _Desk, function: Callable[..., Any], concurrency: int) -> None:
    async def work() -> None:
        item = await asyncio.to_thread(desk.take)
        while item is not None:
            try:
                with case(item["case_id"]):
                    answer = _answer(await function(**item["inputs"]))
            except Exception as error:  # noqa: BLE001 - as above
                answer = _failure(error)
            item = await asyncio.to_thread(desk.give, item["case_id"], answer)

    await asyncio.gather(*(work() for _ in range(concurrency)))


def _answer(output: Any) -> dict[str, Any]:
    return {"output": encode(output, "the agent's answer")}


def _failure(error: Exception) -> dict[str, Any]:
    if isinstance(error, ToolkitError):
        return {"error": error.to_json()}
    text = f"{type(error).__name__}: {error}"[:2000]
    return {"error": ToolFailed(f"the agent raised {text}").to_json()}
