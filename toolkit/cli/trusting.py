"""`trust`: who signs what in the registry."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.app.trusting import own_signer
from toolkit.app.workbench import Workbench, open_workbench
from toolkit.cli import show
from toolkit.cli.auditing import trust_log
from toolkit.cli.roots import show_facts, tell_root
from toolkit.errors import UsageError
from toolkit.values import Environment, JobRef

if TYPE_CHECKING:
    from toolkit.trust import Notary, PublicKey, Root, RootFacts, RootOffice, Verifier

__all__ = ["register"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    trust = typer.Typer(help="Who may sign what in the registry.", no_args_is_help=True)
    trust.command("init")(trust_init)
    trust.command("show")(trust_show)
    trust.command("add-person")(trust_add_person)
    trust.command("remove-person")(trust_remove_person)
    trust.command("rotate")(trust_rotate)
    trust.command("sign")(trust_sign)
    trust.command("pin")(trust_pin)
    trust.command("approve")(trust_approve)
    trust.command("cosign")(trust_cosign)
    trust.command("refresh")(trust_refresh)
    trust.command("log")(trust_log)
    app.add_typer(trust, name="trust")


# -- the root --------------------------------------------------------------------------------------


def trust_init(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Your name here: ana.")],
    name: Annotated[str, typer.Option(help="Your full name.")],
    email: Annotated[str, typer.Option(help="Your address.")],
    protect: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ALIAS=ENVIRONMENT",
            help="Moves with approvals only; repeatable. Left out: production=production.",
        ),
    ] = None,
    unprotected: Annotated[
        bool, typer.Option("--unprotected", help="No alias needs approvals.")
    ] = False,
    days: Annotated[int, typer.Option(help="How long the root is good.")] = 365,
    fresh_days: Annotated[
        int, typer.Option(help="How long a job's aliases are good without a new signature.")
    ] = 90,
    json: Json = False,
) -> int:
    """Switch signing on: the first root, with one person in every role."""
    if protect and unprotected:
        raise UsageError("--protect and --unprotected exclude each other")
    pairs = [one.partition("=") for one in protect or ["production=production"]]
    if any(not (alias and environment) for alias, _, environment in pairs):
        raise UsageError("--protect takes ALIAS=ENVIRONMENT", next_step="production=production")
    protected = {} if unprotected else {alias: environment for alias, _, environment in pairs}
    with open_workbench() as bench:
        root = _office(bench).begin(
            person, name, email, protected=protected, days=days, fresh_days=fresh_days
        )
        bench.registry.record(
            "trust.began", {"root": root.digest, "people": [person]}, by=bench.workspace.user
        )
        tell_root(root, json, "signing is on")
        return 0


def trust_show(json: Json = False) -> int:
    """Show people, roles, thresholds, and until when the root is good."""
    with open_workbench() as bench:
        verifier = _verifier(bench)
        if not verifier.active:
            said = bench.registry.standing
            if json:
                show.print_json({"signed": False, "standing": said})
            else:
                show.out.print(said)
            return 0
        root = verifier.root()
        waiting = _office_without_key(verifier)
        tell_root(root, json, waiting)
        return 0


def trust_add_person(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="A name: ben.")],
    key: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TYPE:BASE64", help="`public` of the person's `toolkit key show`; repeatable."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Full name.")] = None,
    email: Annotated[str | None, typer.Option(help="Address.")] = None,
    role: Annotated[
        list[str] | None,
        typer.Option(help="promoter, approver, policy-approver, operator, root; repeatable."),
    ] = None,
    json: Json = False,
) -> int:
    """Add a person, or change one: what is given replaces what was."""
    from toolkit.trust import ROLES, KeyEntry, PersonEntry

    def change(facts: RootFacts) -> RootFacts:
        old = facts.people.get(person)
        if old is None and not (name and email and key):
            raise UsageError("a new person needs --name, --email and --key")
        entries = [KeyEntry(**_public_key(one).to_json()) for one in key or []]
        if unknown := sorted({*(role or ())} - {*ROLES}):
            raise UsageError(
                f"there is no role {', '.join(map(ascii, unknown))}",
                where="--role",
                next_step=f"roles: {', '.join(ROLES)}",
            )
        entry = PersonEntry(
            name=name or (old.name if old else ""),
            email=email or (old.email if old else ""),
            keys=entries or (old.keys if old else []),
            roles=role if role is not None else (old.roles if old else []),
        )
        return facts.model_copy(update={"people": {**facts.people, person: entry}})

    return _change(change, json)


def trust_remove_person(
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Who leaves.")],
    json: Json = False,
) -> int:
    """Take a person out: what only that person signed is refused from then on."""

    def change(facts: RootFacts) -> RootFacts:
        if person not in facts.people:
            raise UsageError(f"the root does not name {person!a}", next_step="toolkit trust show")
        people = {name: entry for name, entry in facts.people.items() if name != person}
        return facts.model_copy(update={"people": people})

    return _change(change, json)


def trust_rotate(
    threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="ROLE=N", help="How many people a role takes; repeatable."),
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="ALIAS=ENVIRONMENT", help="An empty environment ends it."),
    ] = None,
    new_epoch: Annotated[
        bool, typer.Option("--new-epoch", help="End every alias index signed so far.")
    ] = False,
    separate: Annotated[
        bool | None,
        typer.Option(
            "--separate/--together",
            help="Whether nobody who approves versions may approve policies or roots.",
        ),
    ] = None,
    require_policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ENVIRONMENT", help="Nothing runs without its signed policy; `none` ends all."
        ),
    ] = None,
    days: Annotated[int, typer.Option(help="How long the new root is good.")] = 365,
    json: Json = False,
) -> int:
    """Sign the next root: a new expiry, and what is given."""

    def change(facts: RootFacts) -> RootFacts:
        roles, protected = dict(facts.roles), dict(facts.protected)
        for one in threshold or []:
            role, _, number = one.partition("=")
            if role not in roles or not number.lstrip("-").isdecimal():
                raise UsageError("--threshold takes ROLE=N", next_step=f"roles: {', '.join(roles)}")
            roles[role] = int(number)
        for one in protect or []:
            alias, _, environment = one.partition("=")
            protected.pop(alias, None)
            if environment:
                protected[alias] = environment
        policies = {*(facts.policies or ()), *_environments(require_policy or ())}
        update = {
            "roles": roles,
            "protected": protected,
            "epoch": facts.epoch + 1 if new_epoch else facts.epoch,
            "separate": (facts.separate if separate is None else separate) or None,
            "policies": None if "none" in policies else sorted(policies) or None,
        }
        return facts.model_copy(update=update)

    return _change(change, json, days)


def trust_sign(json: Json = False) -> int:
    """Show the change of the root that waits, and sign it."""
    with open_workbench() as bench:
        office = _office(bench)
        waiting = office.pending()
        if waiting and not json:
            show_facts(waiting[0])
        _settled(bench, office.sign(), json)
        return 0


def trust_pin(
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="sha256:… of a root.")],
    json: Json = False,
) -> int:
    """Trust this root and forget what was seen: compare the digest with its owner first."""
    with open_workbench() as bench:
        verifier = _verifier(bench)
        if not digest.startswith("sha256:") or len(digest) != len("sha256:") + 64:
            raise UsageError(
                "a digest is sha256: and 64 hex digits",
                where=digest,
                next_step="the person who made the root finds it with `toolkit trust show`",
            )
        verifier.state.pin(digest)
        tell_root(verifier.root(), json, "pinned")
        return 0


# -- versions --------------------------------------------------------------------------------------


def trust_approve(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB@3.")],
    environment: Annotated[str, typer.Option(help="Where to.")] = "production",
    days: Annotated[float, typer.Option(help="How long it may be used to move an alias.")] = 7.0,
    json: Json = False,
) -> int:
    """Approve a version, after every byte of it was verified."""
    with open_workbench() as bench:
        version = bench.registry.resolve(JobRef.parse(reference))
        body = {
            "version": version.ref,
            "environment": environment,
            "bundle_digest": version.bundle_digest,
        }

        def told(path: str) -> None:
            body["approval"] = path
            bench.registry.record("approval.given", body, by=bench.workspace.user)

        _notary(bench).approve(version.name, version.number, environment, days=days, before=told)
        found = _verifier(bench).approvals(version.name, version.number, environment)
        if json:
            show.print_json({**body, "people": sorted(found.people), "needed": found.needed})
        else:
            show.out.print(
                f"{version.ref} is approved for {show.safe(environment)} by {len(found.people)} "
                f"of {found.needed}: {', '.join(sorted(found.people))}"
            )
        return 0


def trust_cosign(
    reference: Annotated[str, typer.Argument(metavar="REF", help="JOB@3.")], json: Json = False
) -> int:
    """Sign a version's attestation too, where the root asks for several promoters."""
    with open_workbench() as bench:
        ref = JobRef.parse(reference)
        if ref.version is None:
            raise UsageError("name the version by its number", next_step=f"{ref.name}@3")
        _notary(bench).cosign(ref.name, ref.version)
        if json:
            show.print_json({"version": str(ref)})
        else:
            show.out.print(f"{ref} is signed")
        return 0


def trust_refresh(
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB…", help="Left out: all.")] = None,
    json: Json = False,
) -> int:
    """Sign the aliases of jobs again as they are, before they go stale."""
    with open_workbench() as bench:
        notary, verifier, done = _notary(bench), _verifier(bench), {}
        for job in jobs or bench.registry.jobs():
            if jobs or verifier.index(job, stale=True):
                index = notary.refresh(job, log_bytes=bench.registry.audit_end())
                done[job] = index.expires
        if json:
            show.print_json(done)
        elif not done:
            show.out.print("no job has a signed alias")
        else:
            for job, until in done.items():
                show.out.print(f"{job}: good until {until}")
        return 0


# -- parts -----------------------------------------------------------------------------------------


def _public_key(text: str) -> PublicKey:
    from toolkit.trust import PublicKey

    try:
        return PublicKey.parse(text)
    except ValueError as error:
        raise UsageError(
            f"--key {error}",
            where="--key",
            next_step="paste the line `public` of the person's `toolkit key show`",
        ) from error


def _environments(names: Iterable[str]) -> list[str]:
    known = [environment.value for environment in Environment]
    for name in names:
        if name not in (*known, "none"):
            raise UsageError(
                f"there is no environment {name!a}", next_step=f"name {' or '.join(known)}"
            )
    return list(names)


def _verifier(bench: Workbench) -> Verifier:
    trust = bench.registry.trust
    if trust is None:
        raise UsageError("this registry was opened without what was seen of it last")
    return trust.verifier


def _notary(bench: Workbench) -> Notary:
    from toolkit.trust import Notary

    verifier = _verifier(bench)
    verifier.require_signing()
    return Notary(verifier, own_signer(bench.workspace))


def _office(bench: Workbench) -> RootOffice:
    from toolkit.trust import RootOffice

    return RootOffice(_verifier(bench), own_signer(bench.workspace))


def _office_without_key(verifier: Verifier) -> str:
    from toolkit.trust import PENDING_ROOT

    waits = verifier.reader.exists(PENDING_ROOT)
    return "a change waits for signatures: toolkit trust sign" if waits else ""


def _change(change: Any, json: bool, days: int = 365) -> int:
    with open_workbench() as bench:
        _settled(bench, _office(bench).propose(change, days=days), json)
        return 0


def _settled(bench: Workbench, root: Root | None, json: bool) -> None:
    """Tell what became of a change, and record it; both are promotions of their own."""
    verifier = _verifier(bench)
    if root is None:
        if json:
            show.print_json({"waiting": True, "root": verifier.root().version})
        else:
            show.out.print("signed; it waits for more people: `toolkit trust sign`")
        return
    body = {"root": root.digest, "version": root.version}
    bench.registry.record("trust.changed", body, by=bench.workspace.user)
    tell_root(root, json, "in force")
