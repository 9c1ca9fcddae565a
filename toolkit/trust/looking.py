"""One look at a registry: the root in force, what was seen before, what is newer now."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.errors import IntegrityError
from toolkit.trust.reader import Reader, stored
from toolkit.trust.root import Root, read_root, refused
from toolkit.trust.shapes import time_us
from toolkit.trust.state import IndexMark, LastSeen, StateFile
from toolkit.trust.statements import LogMark
from toolkit.trust.store import ROOT, root_path
from toolkit.values import Clock, iso_utc

__all__ = ["Look", "look", "not_older", "remember", "root_chain"]

_MAX_JUMP_US = 300_000_000
_KEEP_US = 3_600_000_000


@dataclass
class Look:
    """What was known before, and what is newer now.

    Attributes:
        seen: As it was kept.
        root, mark: The root in force, and its mark.
        chain: Every root up to it.
        first: Nothing was kept: the root is pinned by this look.
        log, indexes, policies: What this look found.
    """

    seen: LastSeen
    root: Root
    mark: IndexMark
    chain: tuple[Root, ...] = ()
    first: bool = False
    log: LogMark | None = None
    indexes: dict[str, IndexMark] = field(default_factory=dict)
    policies: dict[str, IndexMark] = field(default_factory=dict)


def look(reader: Reader, state: StateFile, clock: Clock, *, making: bool = False) -> Look:
    """Do steps 1 to 3 of :class:`toolkit.trust.Verifier`.

    Args:
        reader: The registry.
        state: What was seen last.
        clock: For expiry.
        making: Let a root pass that is expired, or a crash left half published: only to sign
            the next one.

    Raises:
        IntegrityError, InvalidFile: A step failed.
    """
    seen = state.load()
    now = clock.now_us()
    if seen and now < seen.at_us - _MAX_JUMP_US:  # 1
        raise IntegrityError(
            f"the clock says {iso_utc(now)}, and {iso_utc(seen.at_us)} was before: "
            "what has expired cannot be told",
            where=str(state.path),
            next_step="set the machine's clock, then run the command again",
        )
    chain = root_chain(reader, torn=making)  # 2
    root = chain[-1]
    _check_memory(chain, seen)
    if now >= time_us(root.facts.expires) and not making:  # 3
        raise refused(
            ROOT,
            f"is stale since {root.facts.expires}: a newer one may have been withheld",
            "sign the next root: `toolkit trust rotate`",
        )
    mark = IndexMark(epoch=0, number=root.version, digest=root.digest)
    known = seen or LastSeen(pinned=root.digest)
    return Look(known, root, mark, tuple(chain), first=seen is None)


def root_chain(reader: Reader, *, torn: bool = False) -> list[Root]:
    """Verify every root from the first on; the last is the newest.

    Args:
        reader: The registry.
        torn: Let ``root.json`` be behind: only to finish what a crash interrupted.

    Raises:
        IntegrityError, InvalidFile: One of them is missing, not signed as it must be, or
            ``root.json`` is not the last.
    """
    newest = reader.read(ROOT)
    chain: list[Root] = []
    while True:
        where = root_path(len(chain) + 1)
        if chain and not reader.exists(where):
            break
        data = reader.read(where)
        chain.append(read_root(stored(data, where), chain[-1] if chain else None, where))
    if data != newest and not torn:
        raise refused(ROOT, f"is not root {len(chain)}, the newest in trust/")
    return chain


def _check_memory(chain: list[Root], seen: LastSeen | None) -> None:
    digests = [one.digest for one in chain]
    if seen and seen.pinned not in digests:
        raise refused(
            ROOT,
            f"does not come from the root that was pinned here ({seen.pinned})",
            "if the registry began anew, compare with its owner: `toolkit trust pin DIGEST`",
        )
    if seen and seen.root:
        if seen.root.number > len(chain):
            raise refused(ROOT, f"is root {len(chain)}, root {seen.root.number} was seen here")
        if digests[seen.root.number - 1] != seen.root.digest:
            where = root_path(seen.root.number)
            raise refused(where, f"was replaced: root {seen.root.number} was another one here")


def remember(found: Look, state: StateFile, clock: Clock) -> None:
    """Do step 11: keep what is newer.

    Raises:
        InfrastructureError: It cannot be kept; then nothing is accepted either.
    """
    now, old = clock.now_us(), found.seen
    new = LastSeen(
        pinned=old.pinned,
        root=found.mark,
        log=found.log,
        indexes=found.indexes,
        policies=found.policies,
        at_us=now,
    ).merged(old)
    same = new.model_copy(update={"at_us": old.at_us}) == old
    if found.first or not same or now - old.at_us > _KEEP_US:
        state.advance(new)


def not_older(mark: IndexMark | None, new: IndexMark, where: str) -> None:
    """Compare a signed thing's number with the last seen.

    Raises:
        IntegrityError: It is older, or another one of the same number.
    """
    if mark is None or new.order > mark.order:
        return
    if new.order < mark.order:
        raise refused(where, f"is number {new.number}, number {mark.number} was seen here")
    if new.digest != mark.digest:
        raise refused(where, f"was replaced: number {new.number} was another one here")
