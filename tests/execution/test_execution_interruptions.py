"""Signals from the record that a run runs to the record of its end."""

from __future__ import annotations

import os
import signal
import threading

from toolkit.execution.interruptions import interruptions
from toolkit.values import Cause, RunState


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_before_the_kernel_cancels_the_run(run) -> None:
    """What came while MLflow or the gateway was being reached is not lost: nothing is executed."""
    with interruptions() as heard:
        send(signal.SIGTERM)
        ran = run("x = 1", heard=heard)
    assert (ran.ending.state, ran.ending.cause) == (RunState.CANCELLED, Cause.SIGNAL)
    assert ran.ending.message == "the runner received SIGTERM"
    assert set(ran.statuses) == {"pending"}


def test_who_listens_is_told_at_once_and_until_the_end() -> None:
    """The first signal is kept for the listener, later ones reach it as they come."""
    told: list[str] = []
    with interruptions() as heard:
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert told == []
        with heard.told_to(told.append):
            assert told == ["SIGTERM"]
            send(signal.SIGINT)
    assert told == ["SIGTERM", "SIGINT"]


def test_what_nobody_listened_to_is_delivered_at_the_end() -> None:
    """Ctrl-C while a run's end is told to MLflow ends the command afterwards, as anywhere else."""
    delivered: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: delivered.append(number))
    try:
        with interruptions() as heard:
            with heard.told_to(lambda _: None):
                pass
            send(signal.SIGINT)
            assert delivered == []
        assert delivered == [signal.SIGINT]
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_leave_signals_alone() -> None:
    """Python lets the main thread handle signals; a run in another one is cancelled otherwise."""
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with interruptions():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]
