"""What runs beside an alias, and what no longer runs: reserved aliases.

    production             the stable version
    production.shadow      runs beside it; what it would change is recorded, not performed
    production.canary-10   gets 10 % of the runs
    revoked.3              version 3 never runs again
    retired                the job has ended

They are aliases like others, so that one file, and in a signed registry one signed index, holds the
whole state of a job, and each change of it is one step.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.errors import NotFound, UsageError
from toolkit.registry.aliases import AliasBook, check_alias

__all__ = [
    "RETIRED",
    "Rollout",
    "beside",
    "blocked",
    "check_free",
    "plan_abort",
    "plan_beside",
    "plan_promote",
    "plan_retire",
    "plan_revoke",
    "plan_stable",
    "revoked",
]

RETIRED = "retired"
_REVOKED = "revoked."
_BESIDE = re.compile(r"(.+)\.(shadow|canary-([1-9][0-9]?))", re.ASCII)
_RESERVED = re.compile(r"retired|revoked\..*|.+\.shadow|.+\.canary-.*", re.ASCII)

Plan = dict[str, int | None]
"""Where aliases are to point; ``None``: nowhere."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """Where an alias points.

    Attributes:
        job, alias: Which.
        stable: The version that runs; ``None``: none.
        shadow: The version that runs beside it without effects.
        canary: The version that gets a share of the runs.
        share: That share, percent.
    """

    job: str
    alias: str
    stable: int | None
    shadow: int | None = None
    canary: int | None = None
    share: int = 0

    @classmethod
    def of(cls, job: str, alias: str, known: Mapping[str, int]) -> Rollout:
        """Read the state from a job's aliases."""
        shadow = canary = None
        share = 0
        for name, number in known.items():
            match = _BESIDE.fullmatch(name)
            if match is None or match[1] != alias:
                continue
            if match[3]:
                canary, share = number, int(match[3])
            else:
                shadow = number
        return cls(job, alias, known.get(alias), shadow, canary, share)

    @property
    def candidate(self) -> int | None:
        """The version beside the stable one."""
        return self.canary or self.shadow

    @property
    def kind(self) -> str:
        """``stable``, ``shadow`` or ``canary``."""
        return "canary" if self.canary else "shadow" if self.shadow else "stable"

    def choose(self, run_id: str) -> tuple[int | None, str]:
        """Return the version that a run gets, and ``stable`` or ``canary``.

        The same run id always gets the same one: SHA-256 of job, alias, candidate and run id,
        modulo 100, below the share.
        """
        if self.canary is None:
            return self.stable, "stable"
        said = f"{self.job}/{self.alias}/{self.canary}/{run_id}".encode()
        chosen = int.from_bytes(hashlib.sha256(said).digest()[:8], "big") % 100 < self.share
        return (self.canary, "canary") if chosen else (self.stable, "stable")


def beside(alias: str, share: int | None) -> str:
    """Return the reserved alias of a canary with a share in percent, or of a shadow (``None``).

    Raises:
        UsageError: The share is not 1 to 99.
    """
    if share is None:
        return f"{alias}.shadow"
    if not 1 <= share <= 99:
        raise UsageError("a canary gets 1 to 99 percent of the runs", next_step="--canary 10%")
    return f"{alias}.canary-{share}"


def check_free(alias: str) -> str:
    """Return an alias that people may set.

    Raises:
        UsageError: It is none, or reserved.
    """
    check_alias(alias)
    if _RESERVED.fullmatch(alias):
        raise UsageError(
            f"{alias!a} is a reserved alias",
            next_step="use promote --canary or --shadow, registry revoke or retire",
        )
    return alias


def revoked(known: Mapping[str, int]) -> set[int]:
    """Return the versions that never run again."""
    return {number for alias, number in known.items() if alias.startswith(_REVOKED)}


def blocked(known: Mapping[str, int], number: int | None) -> str | None:
    """Return the alias that says why a version of a job does not run; ``None``: it does."""
    if number is not None and number in revoked(known):
        return f"{_REVOKED}{number}"
    return RETIRED if RETIRED in known else None


def plan_stable(alias: str, number: int, known: Mapping[str, int]) -> Plan:
    """Point an alias at a version: what ran beside it ends, and so does a retirement."""
    plan: Plan = dict.fromkeys(_all_beside(alias, known))
    if RETIRED in known:
        plan[RETIRED] = None
    return {**plan, alias: number}


def plan_beside(rollout: Rollout, number: int, share: int | None, known: Mapping[str, int]) -> Plan:
    """Put a version beside the stable one, in the place of what was there.

    Raises:
        UsageError: There is no stable version, or it is this one.
    """
    ref = f"{rollout.job}@{rollout.alias}"
    if rollout.stable is None:
        raise UsageError(
            f"{ref} points at no version that another could run beside",
            where=ref,
            next_step="promote without --shadow and --canary first",
        )
    if rollout.stable == number:
        raise UsageError(f"{ref} is version {number} already", where=ref)
    name = beside(rollout.alias, share)
    plan: Plan = {other: None for other in _all_beside(rollout.alias, known) if other != name}
    return {**plan, name: number}


def plan_promote(rollout: Rollout, known: Mapping[str, int]) -> Plan:
    """Make the candidate the stable version.

    Raises:
        NotFound: There is no candidate.
    """
    return plan_stable(rollout.alias, _candidate(rollout), known)


def plan_abort(rollout: Rollout, known: Mapping[str, int]) -> Plan:
    """End what runs beside an alias.

    Raises:
        NotFound: Nothing does.
    """
    _candidate(rollout)
    return dict.fromkeys(_all_beside(rollout.alias, known))


def plan_revoke(number: int, book: AliasBook, known: Mapping[str, int]) -> Plan:
    """End a version: aliases go back to what they pointed at before, or nowhere."""
    plan: Plan = {f"{_REVOKED}{number}": number}
    for alias, points_at in known.items():
        if points_at != number or _RESERVED.fullmatch(alias):
            continue
        plan[alias] = book.before_current(alias, {number, *revoked(known)})
        if plan[alias] is None:
            plan.update(dict.fromkeys(_all_beside(alias, known)))
    plan.update({a: None for a, n in known.items() if n == number and _BESIDE.fullmatch(a)})
    return plan


def plan_retire(number: int, known: Mapping[str, int]) -> Plan:
    """End a job: no alias is left but those of revoked versions."""
    plan: Plan = {alias: None for alias in known if not alias.startswith(_REVOKED)}
    return {**plan, RETIRED: number}


def _candidate(rollout: Rollout) -> int:
    if rollout.candidate is None:
        ref = f"{rollout.job}@{rollout.alias}"
        raise NotFound(
            f"nothing runs beside {ref}",
            where=ref,
            next_step="start one: `toolkit promote NB --canary 10%`",
        )
    return rollout.candidate


def _all_beside(alias: str, known: Mapping[str, int]) -> list[str]:
    return [name for name in known if (m := _BESIDE.fullmatch(name)) and m[1] == alias]
