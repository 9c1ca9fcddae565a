"""A locked environment per version: declared, locked with hashes, built once, verified, shared.

Rules
-----
* What is installed is what the lock names, by hash; the lock is sealed with the version and holds
  no address.  Nothing is compiled or executed to install it: wheels only.
* An environment is named by the digest of everything that it is made of.  It is built aside and
  renamed when it is complete and verified: a half-built one is never seen.
* Nothing that Python starts by itself (``.pth``, ``sitecustomize``) is in an environment, and no
  file that no wheel's ``RECORD`` names.
* Every run looks at the stamp of all files; the first run after a boot reads them all.  A broken
  environment is set aside and built again; it is never repaired.
* The kernel's half of this toolkit goes in as a wheel made from the running source.
* uv is run in this room only.

Known limit: who may write to the workspace's state folder can replace an environment together
with its records; the isolation of kernels keeps them from doing so, these checks do not.
"""

from __future__ import annotations

from toolkit.environments.installed import Provided, WorkspaceEnvironment, provided
from toolkit.environments.kernel_side import KERNEL_MODULES, KERNEL_REQUIREMENTS, KernelSide
from toolkit.environments.lock import Lock, LockedPackage
from toolkit.environments.locking import lock_dependencies
from toolkit.environments.store import Built, Environments, Listed

__all__ = [
    "KERNEL_MODULES",
    "KERNEL_REQUIREMENTS",
    "Built",
    "Environments",
    "KernelSide",
    "Listed",
    "Lock",
    "LockedPackage",
    "Provided",
    "WorkspaceEnvironment",
    "lock_dependencies",
    "provided",
]
