"""``jobs/<name>/requests/<n>.json``: a version that waits for people, and what they said.

Format ``promotion-request/1``.  In an unsigned registry the approvals are in the file; each has a
digest over everything that it is bound to, so a change of one field of the request takes it back,
unless whoever changes the file computes the digest too: nothing here is signed.  In a signed one
approvals are envelopes (:mod:`toolkit.trust`), and the file only says what was asked.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

from toolkit.errors import Conflict, Fault, InvalidFile, NotFound
from toolkit.registry.manifest import loads_strict
from toolkit.registry.storage import Place
from toolkit.registry.trusted import PlaceStore
from toolkit.values import Digest, check_name, digest_json, iso_utc

__all__ = ["Given", "Request", "Requests"]

_SCHEMA = "promotion-request/1"
_MAX_BYTES = 1 << 20
_BOUND = ("job", "version", "bundle_digest", "environment", "policy_digest", "evaluation_digest", "alias", "share", "kind")  # fmt: skip

State = Literal["waiting", "released", "rejected"]


@dataclass(frozen=True, slots=True)
class Given:
    """One person's approval in an unsigned registry.

    Attributes:
        person: Who.
        issued, expires: From when until when it counts, ISO 8601 in UTC.
        nonce: 32 hex digits.
        digest: Of the above and of all that was asked.
    """

    person: str
    issued: str
    expires: str
    nonce: str
    digest: str


@dataclass(frozen=True, slots=True)
class Request:
    """A version that is to be let in.

    Attributes:
        job, version, bundle_digest: Which version.
        alias: What is to point at it, or what it is to run beside.
        kind: ``stable``, ``canary`` or ``shadow``.
        share: Percent of the runs, of a canary.
        environment: Where to.
        policy_digest, evaluation_digest: What it was promoted with.
        needed: How many people it took when it was asked.
        roles: Roles of those who could decide then.
        by, at: Who asked, and when.
        state: ``waiting``, ``released`` or ``rejected``.
        closed_by, closed_at, reason: Who ended it, when and why.
        given: Approvals, in an unsigned registry.
    """

    job: str
    version: int
    bundle_digest: str
    alias: str
    kind: Literal["stable", "canary", "shadow"]
    share: int | None
    environment: str
    policy_digest: str | None
    evaluation_digest: str | None
    needed: int
    roles: tuple[str, ...]
    by: str
    at: str
    state: State = "waiting"
    closed_by: str | None = None
    closed_at: str | None = None
    reason: str | None = None
    given: tuple[Given, ...] = ()

    @property
    def ref(self) -> str:
        """``licence-review@3``."""
        return f"{self.job}@{self.version}"

    @property
    def goal(self) -> str:
        """``production``, or ``10 % of production``, or ``beside production, as a shadow``."""
        if self.kind == "canary":
            return f"{self.share} % of {self.alias}"
        return f"{self.alias}, as a shadow" if self.kind == "shadow" else self.alias

    def approve(self, person: str, *, now_us: int, expires_s: float) -> Request:
        """Return the request with a person's approval."""
        issued, expires = iso_utc(now_us), iso_utc(now_us + round(expires_s * 1e6))
        given = Given(person, issued, expires, secrets.token_hex(16), "")
        signed = replace(given, digest=self._digest(given))
        return replace(self, given=(*self.given, signed))

    def counted(self, now_us: int) -> tuple[list[Given], list[str]]:
        """Return the approvals that are whole and in force, and why others are not.

        Whether their people may approve is not asked here.
        """
        now, good, ignored = iso_utc(now_us), [], []
        for one in self.given:
            if one.digest != self._digest(one):
                ignored.append(f"the approval of {one.person} is of something else")
            elif not one.issued <= now < one.expires:
                ignored.append(f"the approval of {one.person} expired {one.expires}")
            else:
                good.append(one)
        return good, ignored

    def _digest(self, given: Given) -> Digest:
        asked = {name: getattr(self, name) for name in _BOUND}
        said = {"person": given.person, "issued": given.issued, "expires": given.expires}
        return digest_json({"asked": asked, **said, "nonce": given.nonce})

    def to_bytes(self) -> bytes:
        """Return the file's one byte form."""
        facts = {"schema": _SCHEMA, **asdict(self)}
        return (json.dumps(facts, indent=1, ensure_ascii=True) + "\n").encode("ascii")

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Request:
        """Read the file.

        Raises:
            InvalidFile: It is not ``promotion-request/1`` in its one byte form.
        """
        try:
            facts = loads_strict(data)
            if facts.pop("schema") != _SCHEMA:
                raise ValueError(f"its schema is not {_SCHEMA}")  # noqa: TRY301 - told once below
            given = tuple(Given(**one) for one in facts.pop("given"))
            made = cls(**{**facts, "roles": tuple(facts["roles"])}, given=given)
            if made.to_bytes() != data:
                raise ValueError("it was edited by hand")  # noqa: TRY301 - told once below
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InvalidFile.of(where, [Fault("file", str(error))]) from error
        return made


class Requests:
    """The requests of one registry.  Every change is one replaced file under the job's lock.

    Args:
        place: The registry's folder and locks.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._store = PlaceStore(place)

    def get(self, job: str, version: int) -> Request:
        """Return what was asked about a version.

        Raises:
            NotFound: Nothing was.
            InvalidFile: The file is damaged, or of another version.
        """
        where = _path(job, version)
        try:
            data = self._store.read(where, _MAX_BYTES)
        except FileNotFoundError as error:
            raise NotFound(
                f"{job}@{version} was never asked about",
                where=where,
                next_step="see what waits: `toolkit inbox`",
            ) from error
        except OSError as error:
            raise InvalidFile.of(where, [Fault("file", str(error.strerror))]) from error
        found = Request.from_bytes(data, where)
        if (found.job, found.version) != (job, version):
            raise InvalidFile.of(where, [Fault("file", f"is of {found.ref}")])
        return found

    def of(self, job: str) -> Iterator[Request]:
        """Yield all requests of a job by version."""
        names = self._store.names(f"jobs/{check_name(job, 'job name')}/requests")
        numbers = sorted(int(n[:-5]) for n in names if n.endswith(".json") and n[:-5].isdigit())
        for number in numbers:
            yield self.get(job, number)

    def ask(self, request: Request) -> Request:
        """Store a request; one of the same version that waits is replaced."""
        with self._place.lock(f"requests-{request.job}"):
            self._store.write(_path(request.job, request.version), request.to_bytes())
        return request

    def change(self, job: str, version: int, how: Callable[[Request], Request]) -> Request:
        """Replace a request that waits.

        Raises:
            NotFound, InvalidFile: See :meth:`get`.
            Conflict: It does not wait any more.
        """
        with self._place.lock(f"requests-{check_name(job, 'job name')}"):
            found = self.get(job, version)
            if found.state != "waiting":
                told = f": {found.reason}" if found.reason else ""
                raise Conflict(
                    f"{found.ref} was {found.state} by {found.closed_by}{told}",
                    where=found.ref,
                    next_step="see what waits: `toolkit inbox`",
                )
            changed = how(found)
            self._store.write(_path(job, version), changed.to_bytes())
            return changed


def _path(job: str, version: int) -> str:
    return f"jobs/{check_name(job, 'job name')}/requests/{int(version)}.json"
