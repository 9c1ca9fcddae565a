"""Who may say what about the registry, and how a reader knows that they said it.

    registry/trust/root.json             people, keys, roles, thresholds; <n>.root.json each of them
    jobs/<name>/<n>/attestation.dsse.json   a promoter signs every file of a version
    jobs/<name>/approvals/*.dsse.json    a person approves a version for an environment
    jobs/<name>/index.dsse.json          an operator signs where all aliases of a job point
    trust/policy-<environment>.dsse.json policy approvers sign the bundle in force
    log/checkpoints.jsonl                the audit log had this length and this head
    (the ledger's call.answered)         a person answers a request about one call
    .toolkit/trust/state.json            what this machine saw last: outside the registry

Rules
-----
* Storage is not trusted: what :class:`Verifier` returns was verified in memory, and only that is
  used.  It is the one place that believes a signature.
* Signatures are verified over raw bytes, and the same bytes are parsed, strictly: twin members,
  unknown members and other types are refused.  What nothing signs decides nothing.
* A key's type fixes its algorithm, its content fixes its id, and the root fixes whose it is.
* A threshold counts different people with the role, never keys; it is at least 1 and at most as
  many as hold the role.  One bad signature refuses the file.  An author never approves.
* The policy in force is a signed number too: alias indexes name it, so that no machine takes none
  or an older one beside them; it expires as they do, and says how many approvals it asks for.
* In a registry whose root protects an alias, no other alias is a way around its approvals.
* A root may keep those who approve versions apart from those who approve policies and roots.
* What was seen last is kept outside the registry and never goes back; without it, an old registry
  with all its signatures cannot be told from the present one.
* A registry without a root is unsigned, and says so; one that had a root never is again.
* Private keys are opened by URI, stay inside a :class:`Signer`, and appear in no message.
* This room owns cryptography's keys and signatures; no other room imports that package.
"""

from __future__ import annotations

from toolkit.trust.answers import CallAnswer, answerer, call_answer, read_answer, sign_answer
from toolkit.trust.approving import Approvals, Asked, VerifiedVersion
from toolkit.trust.dsse import Envelope, Signature, pae
from toolkit.trust.everything import read_checkpoints, verify_everything
from toolkit.trust.keys import PublicKey, Signer
from toolkit.trust.log import mark_at
from toolkit.trust.notary import Notary, sign
from toolkit.trust.root import ROLES, KeyEntry, PersonEntry, Root, RootFacts, read_root
from toolkit.trust.rooting import PENDING_ROOT, RootOffice
from toolkit.trust.signers import SIGNERS_GROUP, KeySigner, new_key, open_signer
from toolkit.trust.state import LastSeen, StateFile
from toolkit.trust.statements import (
    AliasEntry,
    AliasIndex,
    Approval,
    Checkpoint,
    LogMark,
    PolicyAsks,
    PolicyChange,
    PolicyMark,
    Promotion,
    read_statement,
    statement_bytes,
)
from toolkit.trust.store import ATTESTATION, CHECKPOINTS, ROOT, ManifestFacts, Store
from toolkit.trust.verifier import VerifiedAlias, Verifier

__all__ = [
    "ATTESTATION",
    "CHECKPOINTS",
    "PENDING_ROOT",
    "ROLES",
    "ROOT",
    "SIGNERS_GROUP",
    "AliasEntry",
    "AliasIndex",
    "Approval",
    "Approvals",
    "Asked",
    "CallAnswer",
    "Checkpoint",
    "Envelope",
    "KeyEntry",
    "KeySigner",
    "LastSeen",
    "LogMark",
    "ManifestFacts",
    "Notary",
    "PersonEntry",
    "PolicyAsks",
    "PolicyChange",
    "PolicyMark",
    "Promotion",
    "PublicKey",
    "Root",
    "RootFacts",
    "RootOffice",
    "Signature",
    "Signer",
    "StateFile",
    "Store",
    "VerifiedAlias",
    "VerifiedVersion",
    "Verifier",
    "answerer",
    "call_answer",
    "mark_at",
    "new_key",
    "open_signer",
    "pae",
    "read_answer",
    "read_checkpoints",
    "read_root",
    "read_statement",
    "sign",
    "sign_answer",
    "statement_bytes",
    "verify_everything",
]
