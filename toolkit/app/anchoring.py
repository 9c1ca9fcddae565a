"""The audit log's anchor in MLflow: renewed by whoever adds to the log, and held against it.

A chain shows what was changed inside it, and not that its end is missing.  So each command that added
to the log tells MLflow at its end how far the log got.  The anchor never moves to a log that does not
hold what was anchored before: a cut log cannot make MLflow forget.  MLflow being away is a warning,
and the next command that adds to the log catches up.

Known limits: records that were added after the last anchor can be cut unseen, as can those of a
command that was killed before its end.  Who can write to MLflow can write anchors.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from toolkit.errors import Fault, ToolkitError, TrackingError
from toolkit.values import SystemClock, iso_utc

if TYPE_CHECKING:
    from toolkit.app.workbench import Workbench
    from toolkit.registry import LogEnds, Registry
    from toolkit.tracing import Anchor, Anchors

__all__ = ["AnchorCheck", "check_anchor", "renew_anchor"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AnchorCheck:
    """The log beside its anchor.

    Attributes:
        faults: What does not agree.
        records: Up to which record MLflow was told; 0: it has no anchor, or did not answer.
        sentence: How it stands, for people.
    """

    faults: tuple[Fault, ...] = ()
    records: int = 0
    sentence: str = ""


def renew_anchor(bench: Workbench) -> None:
    """Tell MLflow how far the audit log got, if this command added to it; never raises ours."""
    try:
        if not bench.registry.audit_changed:
            return
        anchors = _anchors(bench)
        if not anchors.made:
            return  # nothing was ever shown in MLflow here: `registry verify` says so
        anchors.check()
        faults = _renew(bench.registry, anchors)
    except ToolkitError as error:
        _log.warning("the audit log is not anchored in MLflow: %s", error)
        return
    for fault in faults:
        _log.warning("the audit log is not anchored anew: it %s", fault.message)


def _renew(registry: Registry, anchors: Anchors) -> list[Fault]:
    from toolkit.tracing import Anchor

    ends = registry.audit_ends()
    if ends is None:
        return []
    known = next((one for one in anchors.all() if one.log == ends.first), None)
    if known is not None:
        faults = _against(registry, known)
        if faults or known.head == ends.head:
            return faults
    at = iso_utc(SystemClock().now_us())
    anchors.write(Anchor(ends.first, ends.records, ends.head, _where(registry), at))
    return []


def check_anchor(bench: Workbench) -> AnchorCheck:
    """Hold the audit log against what MLflow was told of it.

    Raises:
        IntegrityError: The log is damaged; verify the registry first.
    """
    registry, anchors = bench.registry, _anchors(bench)
    try:
        anchors.check()
        known = anchors.all()
    except TrackingError as error:
        return AnchorCheck(sentence=f"not held against an anchor in MLflow: {error.message}")
    ends = registry.audit_ends()
    mine = next((one for one in known if ends is not None and one.log == ends.first), None)
    if mine is not None:
        faults = _against(registry, mine)
        told = f"MLflow was told of record {mine.records} at {mine.at}"
        return AnchorCheck(tuple(faults), mine.records, f"{told}: it is in the log")
    where = _where(registry)
    others = [one for one in known if one.where == where]
    if not others:
        return AnchorCheck(sentence="MLflow has no anchor of this audit log")
    faults = [_replaced(one, ends) for one in others]
    return AnchorCheck(tuple(faults), 0, "MLflow has the anchor of another audit log")


def _against(registry: Registry, anchor: Anchor) -> list[Fault]:
    """Return what does not agree between an anchor and the log that it is of."""
    ends = registry.audit_ends(anchor.records)
    if ends is None or ends.middle is None:
        has = ends.records if ends else 0
        return [
            _fault(
                f"ends at record {has}, MLflow was told of record {anchor.records} at {anchor.at}: "
                "its tail was cut, or an old copy was put back"
            )
        ]
    if ends.middle != anchor.head:
        return [
            _fault(
                f"has another record {anchor.records} than MLflow was told of at {anchor.at}: "
                f"expected {anchor.head}, actual {ends.middle}"
            )
        ]
    return []


def _replaced(anchor: Anchor, ends: LogEnds | None) -> Fault:
    stands = "is missing" if ends is None else "was begun anew"
    return _fault(
        f"{stands}: MLflow was told of another one here, of {anchor.records} records, at {anchor.at}"
    )


def _fault(message: str) -> Fault:
    from toolkit.tracing import ANCHOR_EXPERIMENT

    step = f"restore the log from a copy; the anchor is a tag of MLflow's experiment {ANCHOR_EXPERIMENT}"
    return Fault("log/audit.jsonl", message, step)


def _anchors(bench: Workbench) -> Anchors:
    from toolkit.tracing import Anchors

    return Anchors(bench.tracking.store)


def _where(registry: Registry) -> str:
    """The registry's address; of a folder with the name of its machine."""
    where = registry.where
    return where if "://" in where else f"{socket.gethostname()}:{where}"
