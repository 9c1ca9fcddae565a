"""Approve or let in a version, in a process of its own: ``approve_script.py ROOT WHO ACTION US [KEY STATE]``.

Without a key the registry is unsigned and the roles are those of `POLICY`'s reviewers.
"""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.app.promotions import Promotions
from toolkit.policy import People, Person, PolicyBundle, ToolCatalog
from toolkit.registry import Registry
from toolkit.trust import open_signer
from toolkit.values import JobRef, ManualClock

JOB, NUMBER = "review", "1"
POLICY = """
environment: production
mode: enforce
unknown_price: allow
minimum_isolation: none
require_results: false
budget: {usd: null, tokens: null, calls: null, seconds: null}
promotion: {approvals: 2, from: [reviewer]}
"""


def open_promotions(root: Path, who: str, us: int, key: str = "", state: str = "") -> Promotions:
    """The promotions of one person, with that person's key."""
    clock = ManualClock(us)
    signed = {"trust_state": Path(state), "signer": lambda: open_signer(f"file:{key}")}
    registry = Registry(root, clock=clock, **(signed if key else {}))  # type: ignore[arg-type]
    people = People({name: Person(name, "", ("reviewer",)) for name in ("ben", "cho")})
    folder = root / "policies" / "production"
    bundle = PolicyBundle.load(folder, tools=ToolCatalog({}))
    return Promotions(registry, lambda: bundle, lambda: people, who, clock=clock)


def act(promotions: Promotions, action: str) -> None:
    """Approve the version, or complete what was approved."""
    ref = JobRef(JOB, NUMBER)
    if action == "approve":
        promotions.approve(ref)
    else:
        promotions.settle(promotions.get(ref).request)


if __name__ == "__main__":
    root, who, action, us, *rest = sys.argv[1:]
    act(open_promotions(Path(root), who, int(us), *rest), action)
