"""Signed-off versions of jobs as plain files that never change, their aliases, and the audit log.

    jobs/<name>/<n>/job.yaml + files     one version, written once, read-only
    jobs/<name>/aliases.json             where ``production`` points, and every move it made
    jobs/<name>/requests/<n>.json        a version that waits for people, and what they said
    log/audit.jsonl                      hash chain of everything that happened here

Rules
-----
* Storage is not trusted: a reader gets bytes only after every digest of the version was
  recomputed over exactly those bytes, and no file is opened twice.
* A version is published by one step onto a number that is not taken, complete, durable and read
  back before: a rename in a folder, the creation of its tree in a bucket
  (:mod:`toolkit.registry.storage`).  A crash leaves the whole version or nothing a reader sees.
* No promise rests on a listing or on a lock: both only spare work.
* What is about to happen is in the audit log before it happens (``version.sealing``,
  ``alias.moving``) and again after it (``version.sealed``, ``alias.moved``): a version without
  a record was planted, a record of a sealed version without its folder means it was removed.
* Names are checked before they touch a path; no symbolic link below the registry is followed.
* The chain proves order and content up to its last record; that a *tail* was cut shows only
  against a head that was kept elsewhere (:meth:`Registry.audit_head`); MLflow keeps one.
* Digests show that something changed, not who wrote it.  In a signed registry
  (:mod:`toolkit.trust`) nothing is returned, moved or sealed without its signatures; in an
  unsigned one, anybody who can write the files can promote.
* How many people policy asked for is signed with an alias, and asked again by whoever follows it.
* A signed alias index is written before ``aliases.json``: it is what a reader follows, and the
  same move repeated mends what a crash left behind.
* What of a job runs (stable, canary, shadow, revoked, retired) is in its aliases, reserved ones
  among them, so every change of it is one step and each is audited.  A revoked version never runs
  again.
"""

from __future__ import annotations

from toolkit.registry.aliases import AliasMove, shown_aliases
from toolkit.registry.audit import AuditRecord, LogEnds
from toolkit.registry.diff import CellChange, Change, FileChange, ValueChange, VersionDiff
from toolkit.registry.manifest import FileFact, Manifest
from toolkit.registry.releases import Releases
from toolkit.registry.requests import Given, Request, Requests
from toolkit.registry.rollout import Rollout, beside
from toolkit.registry.storage import place_at
from toolkit.registry.store import Registry
from toolkit.registry.version import Sealed, Version

__all__ = [
    "AliasMove",
    "AuditRecord",
    "CellChange",
    "Change",
    "FileChange",
    "FileFact",
    "Given",
    "LogEnds",
    "Manifest",
    "Registry",
    "Releases",
    "Request",
    "Requests",
    "Rollout",
    "Sealed",
    "ValueChange",
    "Version",
    "VersionDiff",
    "beside",
    "place_at",
    "shown_aliases",
]
