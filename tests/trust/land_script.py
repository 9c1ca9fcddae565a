"""Promote what passed, in a process of its own: ``land_script.py ROOT WHO US [KEY STATE]``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from approve_script import JOB, open_promotions

from toolkit.app.promotions import Promotions
from toolkit.app.standing import Wish
from toolkit.promotion.landing import Landing, aliases_of
from toolkit.promotion.recall import unchanged_version
from toolkit.values import iso_utc

STANDING = "sha256:" + "5" * 64
MEASUREMENTS = [{"key": "sha256:" + "6" * 64, "run_id": "run-1", "n": 3, "hash": "sha256:" + "7" * 64}]  # fmt: skip


def evidence(promotions: Promotions) -> dict[str, object]:
    """What the gate found: an attempt that passed."""
    return {
        "schema": "evidence/1",
        "job": JOB,
        "notebook": "notebooks/review.ipynb",
        "notebook_digest": "sha256:" + "8" * 64,
        "promoted_by": promotions.user,
        "at": iso_utc(promotions.clock.now_us()),
        "attempt": 1,
        "policy_digest": promotions.bundle().digest,
        "evaluation_sets": {},
        "stages": [{"name": "check", "passed": True, "findings": []}],
        "gates": [],
        "standing": STANDING,
        "measurements": MEASUREMENTS,
    }


def promote(promotions: Promotions) -> str | None:
    """As the gate does once everything has passed; returns what it waits for."""
    wish = Wish()
    promotions.admit(JOB, wish)

    def release(job: str, number: int) -> str | None:
        standing = promotions.release(job, number, wish)
        return None if standing is None or standing.moved else standing.sentence

    landing = Landing(promotions.registry, promotions.user, release, promotions.clock)
    begun = landing.begun(JOB, STANDING, wish)
    if begun is not None:
        return landing.finish(begun).waiting
    if unchanged_version(promotions.registry, JOB, aliases_of(wish), STANDING) is not None:
        return None
    files = {
        "notebook.ipynb": b'{"cells": []}\n',
        "evidence.json": json.dumps(evidence(promotions)).encode(),
    }
    return landing.land(JOB, files, {"policy_digest": promotions.bundle().digest}).waiting


if __name__ == "__main__":
    root, who, us, *rest = sys.argv[1:]
    promote(open_promotions(Path(root), who, int(us), *rest))
