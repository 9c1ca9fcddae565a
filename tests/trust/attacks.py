"""What the owner of a registry's disk can do to it, and what a thief of one key can sign.

Each attack gets a registry whose production alias points at version 2 (version 1 before it) under
policy 2 (1 before it), as this machine has seen it, and its copies: ``old`` from when production was
at version 1.  ``FOR_A_FRESH_MACHINE`` are those that one detects too that never saw the registry.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trust_world import JOB, World, later, make_key, person, resigned, signed, write

from toolkit.trust import AliasIndex, Envelope, statement_bytes
from toolkit.values import canonical_bytes

Attack = Callable[[World, Path], None]
ATTACKS: dict[str, tuple[Attack, str]] = {}
FOR_A_FRESH_MACHINE: list[str] = []
INDEX, V1, V2 = f"jobs/{JOB}/index.dsse.json", f"jobs/{JOB}/1", f"jobs/{JOB}/2"
ATTESTATION = f"{V2}/attestation.dsse.json"
PRODUCTION, SANDBOX = (f"trust/policy-{name}.dsse.json" for name in ("production", "sandbox"))


def attack(reason: str, *, fresh: bool = False) -> Callable[[Attack], Attack]:
    """Register an attack with what its refusal must say (a regular expression)."""

    def keep(function: Attack) -> Attack:
        ATTACKS[function.__name__] = (function, reason)
        FOR_A_FRESH_MACHINE.extend([function.__name__] if fresh else [])
        return function

    return keep


def approval_of(world: World, number: int) -> Path:
    return next((world.path / "jobs" / JOB / "approvals").glob(f"{number}.*"))


def edit_envelope(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    body = json.loads(path.read_bytes())
    change(body)
    write(path, json.dumps(body, separators=(",", ":")).encode() + b"\n")


# -- old things -------------------------------------------------------------------------------


@attack(r"trust/root.json is root 2, root 3 was seen")
def root_rolled_back(world: World, old: Path) -> None:
    world.change_root(lambda facts: facts)
    world.verifier.root()
    shutil.rmtree(world.path / "trust")
    shutil.copytree(old / "trust", world.path / "trust")


@attack(r"index.dsse.json is number 1, number 2 was seen")
def index_rolled_back(world: World, old: Path) -> None:
    world.put_back(old, INDEX)


@attack(r"index.dsse.json is number 1, number 2 was seen")
def everything_but_the_log_rolled_back(world: World, old: Path) -> None:
    world.put_back(old, "jobs", "trust")


@attack(r"log/audit.jsonl was cut|index.dsse.json is number 1")
def everything_rolled_back(world: World, old: Path) -> None:
    world.put_back(old, "jobs", "trust", "log")


@attack(r"root.json is stale since 20")
def root_frozen(world: World, old: Path) -> None:
    world.clock.advance(seconds=366 * 86_400)


@attack(r"index.dsse.json is stale since 20")
def index_frozen(world: World, old: Path) -> None:
    world.clock.advance(seconds=91 * 86_400)


@attack(r"the clock says 20")
def clock_set_back(world: World, old: Path) -> None:
    world.clock.advance(seconds=-86_400)


@attack(r"audit.jsonl was cut")
def log_tail_cut(world: World, old: Path) -> None:
    world.put_back(old, "log/audit.jsonl")


@attack(r"audit.jsonl (was written again|has no record that ends)")
def log_written_again(world: World, old: Path) -> None:
    path = world.path / "log/audit.jsonl"
    write(path, path.read_bytes().replace(b'"by":"ana"', b'"by":"eva"'))


# -- policies ---------------------------------------------------------------------------------


@attack(
    r"policy-production.dsse.json is missing: (number 2 was seen|.* names number 2)", fresh=True
)
def policy_removed(world: World, old: Path) -> None:
    (world.path / PRODUCTION).unlink()


@attack(
    r"policy-production.dsse.json is number 1, (number 2 was seen|.* names number 2)", fresh=True
)
def policy_rolled_back(world: World, old: Path) -> None:
    world.put_back(old, PRODUCTION)


@attack(r"policy-production.dsse.json is stale since 20", fresh=True)
def policy_frozen(world: World, old: Path) -> None:
    world.clock.advance(seconds=60 * 86_400)
    trust = world.registry.trust
    assert trust
    trust.notary().refresh(JOB, log_bytes=world.registry.audit_end())
    world.clock.advance(seconds=31 * 86_400)


@attack(r"policy-production.dsse.json is of the environment sandbox", fresh=True)
def policies_of_two_environments_swapped(world: World, old: Path) -> None:
    one, other = world.path / PRODUCTION, world.path / SANDBOX
    data = one.read_bytes()
    write(one, other.read_bytes())
    write(other, data)


@attack(r"policy-sandbox.dsse.json is missing", fresh=True)
def policy_of_another_environment_removed(world: World, old: Path) -> None:
    (world.path / SANDBOX).unlink()


@attack(r"policy-production.dsse.json was replaced: .*number 2", fresh=True)
def another_policy_of_the_same_number(world: World, old: Path) -> None:
    world.put_back(old, PRODUCTION)
    fork = World.__new__(World)
    fork.__dict__.update(world.__dict__, path=world.folder / "fork")
    fork.state_path = world.folder / "fork-state" / "state.json"
    shutil.copytree(old, fork.path)
    write(world.path / PRODUCTION, fork.promote_policy("sha256:" + "e" * 64).read_bytes())


@attack(
    r"policy-production.dsse.json is signed by 0 of 1 people with the role policy-app", fresh=True
)
def policy_signed_by_somebody_without_the_role(world: World, old: Path) -> None:
    path = world.path / PRODUCTION
    write(path, resigned(path, [world.keys["ben"]], lambda _: None))


@attack(r"policy-production.dsse.json has a signature that is not dan's", fresh=True)
def policy_weakened_under_its_signature(world: World, old: Path) -> None:
    payload = json.loads(Envelope.from_bytes((world.path / PRODUCTION).read_bytes()).payload)
    payload["predicate"]["policy_digest"] = "sha256:" + "a" * 64
    other = base64.b64encode(canonical_bytes(payload)).decode()
    edit_envelope(world.path / PRODUCTION, lambda body: body.update(payload=other))


@attack(r"its members are of urn:agent-toolkit:policy-change:2", fresh=True)
def policy_of_two_formats(world: World, old: Path) -> None:
    def older(statement: dict[str, Any]) -> None:
        statement["predicateType"] = "urn:agent-toolkit:policy-change:1"

    path = world.path / PRODUCTION
    write(path, resigned(path, [world.keys["dan"]], older))


# -- mixed things -----------------------------------------------------------------------------


@attack(r"attestation.dsse.json is of review@1, expected review@2")
def older_version_under_the_newer_number(world: World, old: Path) -> None:
    shutil.rmtree(world.path / V2)
    shutil.copytree(world.path / V1, world.path / V2)


@attack(r"attestation.dsse.json is of review@1, expected review@2")
def attestation_of_another_version(world: World, old: Path) -> None:
    write(world.path / ATTESTATION, (world.path / V1 / "attestation.dsse.json").read_bytes())


@attack(r"evidence.json was changed: expected sha256")
def file_of_another_version(world: World, old: Path) -> None:
    write(world.path / V2 / "evidence.json", (world.path / V1 / "evidence.json").read_bytes())


@attack(r"job.yaml was changed")
def manifest_of_another_version(world: World, old: Path) -> None:
    write(world.path / V2 / "job.yaml", (world.path / V1 / "job.yaml").read_bytes())


@attack(r"is of the job other")
def index_of_another_job(world: World, old: Path) -> None:
    def rename(statement: dict[str, Any]) -> None:
        statement["predicate"]["job"] = "other"
        facts = AliasIndex.model_validate(statement["predicate"])
        statement.update(json.loads(statement_bytes(facts)))

    write(world.path / INDEX, resigned(world.path / INDEX, [world.keys["ana"]], rename))


@attack(r"was replaced: number 2 was another one")
def another_index_of_the_same_number(world: World, old: Path) -> None:
    def forget(statement: dict[str, Any]) -> None:
        statement["predicate"]["expires"] = later(world.clock, 300)
        facts = AliasIndex.model_validate(statement["predicate"])
        statement.update(json.loads(statement_bytes(facts)))

    write(world.path / INDEX, resigned(world.path / INDEX, [world.keys["ana"]], forget))


@attack(r"jobs/review/2/attestation.dsse.json is of sha256:.*, the index of sha256")
def another_bundle_signed_under_the_same_number(world: World, old: Path) -> None:
    fork = World.__new__(World)
    fork.__dict__.update(world.__dict__, path=world.folder / "fork")
    fork.state_path = world.folder / "fork-state" / "state.json"
    shutil.copytree(old, fork.path)
    fork.seal(0.1)
    shutil.rmtree(world.path / V2)
    shutil.copytree(fork.path / V2, world.path / V2)


# -- files ------------------------------------------------------------------------------------


@attack(r"jobs/review/2/extra.py was not signed for")
def extra_file(world: World, old: Path) -> None:
    write(world.path / V2 / "extra.py", b"import os")


@attack(r"jobs/review/2/notebook.ipynb is missing")
def missing_file(world: World, old: Path) -> None:
    (world.path / V2 / "notebook.ipynb").unlink()


@attack(r"notebook.ipynb cannot be read: not a plain file")
def link_with_the_same_bytes(world: World, old: Path) -> None:
    path = world.path / V2 / "notebook.ipynb"
    aside = world.folder / "same.ipynb"
    aside.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(aside)


@attack(r"jobs/review/2 (is not a folder|cannot be read)")
def folder_that_is_a_link(world: World, old: Path) -> None:
    aside = world.folder / "aside"
    (world.path / V2).rename(aside)
    (world.path / V2).symlink_to(aside)


@attack(r"notebook.ipynb cannot be read: not a plain file")
def pipe_instead_of_a_file(world: World, old: Path) -> None:
    (world.path / V2 / "notebook.ipynb").unlink()
    os.mkfifo(world.path / V2 / "notebook.ipynb")


@attack(r"index.dsse.json cannot be read: longer than")
def endless_data(world: World, old: Path) -> None:
    write(world.path / INDEX, b" " * (5 << 20))


@attack(r"trust/root.json is missing")
def signing_switched_off(world: World, old: Path) -> None:
    shutil.rmtree(world.path / "trust")


@attack(r"attestation.dsse.json is missing")
def attestation_removed(world: World, old: Path) -> None:
    (world.path / ATTESTATION).unlink()


@attack(r"index.dsse.json is missing")
def index_removed(world: World, old: Path) -> None:
    (world.path / INDEX).unlink()


@attack(r"approvals of 0 of 1 people")
def approval_removed(world: World, old: Path) -> None:
    approval_of(world, 2).unlink()


# -- signatures -------------------------------------------------------------------------------


def _attest_as(world: World, *keys: Any) -> None:
    path = world.path / ATTESTATION
    write(path, resigned(path, list(keys), lambda _: None))


@attack(r"is signed by the key 'sha256:.*', which the root does not list")
def attested_by_a_stranger(world: World, old: Path) -> None:
    _attest_as(world, make_key())


@attack(r"signed by 0 of 1 people with the role promoter")
def attested_by_somebody_without_the_role(world: World, old: Path) -> None:
    _attest_as(world, world.keys["eve"])


@attack(r"which the root does not list")
def a_strangers_signature_added(world: World, old: Path) -> None:
    _attest_as(world, world.keys["ana"], make_key())


@attack(r"has a signature that is not ana's")
def a_signature_of_other_bytes(world: World, old: Path) -> None:
    stranger = json.loads((world.path / V1 / "attestation.dsse.json").read_bytes())["signatures"]
    edit_envelope(world.path / ATTESTATION, lambda body: body.update(signatures=stranger))


@attack(r"has a signature that is not ben's")
def a_signature_under_another_key_id(world: World, old: Path) -> None:
    """Algorithm swap: an Ed25519 signature is called one of ben's P-256 key."""
    ben = world.keys["ben"].public.id
    edit_envelope(world.path / ATTESTATION, lambda body: body["signatures"][0].update(keyid=ben))


@attack(r"signatures is not a list of 1 to 64")
def no_signatures(world: World, old: Path) -> None:
    edit_envelope(world.path / ATTESTATION, lambda body: body.update(signatures=[]))


@attack(r"a key signs twice")
def one_signature_twice(world: World, old: Path) -> None:
    edit_envelope(
        world.path / ATTESTATION, lambda body: body.update(signatures=body["signatures"] * 2)
    )


@attack(r"payloadType is 'text/plain'")
def another_payload_type(world: World, old: Path) -> None:
    edit_envelope(world.path / ATTESTATION, lambda body: body.update(payloadType="text/plain"))


@attack(r"its bytes are not the one form that a stored envelope has")
def unsigned_members_beside_the_payload(world: World, old: Path) -> None:
    edit_envelope(world.path / ATTESTATION, lambda body: body.update(approved=True))


@attack(r"appears twice")
def two_payloads(world: World, old: Path) -> None:
    path = world.path / ATTESTATION
    other = base64.b64encode(b"{}")
    write(path, path.read_bytes().replace(b'{"payload"', b'{"payload":"%s","payload"' % other, 1))


@attack(
    r"predicateType is 'urn:agent-toolkit:approval:1', expected 'urn:agent-toolkit:promotion:1'"
)
def an_approval_as_an_attestation(world: World, old: Path) -> None:
    def confuse(statement: dict[str, Any]) -> None:
        statement["predicateType"] = "urn:agent-toolkit:approval:1"

    path = world.path / ATTESTATION
    write(path, resigned(path, [world.keys["ana"]], confuse))


@attack(r"the member 'name' appears twice")
def twin_members_that_were_signed(world: World, old: Path) -> None:
    path = world.path / ATTESTATION
    payload = Envelope.from_bytes(path.read_bytes()).payload
    twin = payload.replace(b'"name":"review"', b'"name":"review","name":"review"')
    assert twin != payload
    write(path, signed(twin, [world.keys["ana"]]))


@attack(r"Extra inputs are not permitted")
def unknown_members_that_were_signed(world: World, old: Path) -> None:
    def add(statement: dict[str, Any]) -> None:
        statement["predicate"]["approved"] = True

    path = world.path / ATTESTATION
    write(path, resigned(path, [world.keys["ana"]], add))


@attack(r"job.yaml says another bundle_digest than its attestation")
def an_attestation_that_its_promoter_forged(world: World, old: Path) -> None:
    def other(statement: dict[str, Any]) -> None:
        statement["predicate"]["bundle_digest"] = "sha256:" + "0" * 64

    path = world.path / ATTESTATION
    write(path, resigned(path, [world.keys["ana"]], other))


# -- roots ------------------------------------------------------------------------------------


def _next_root(world: World, change: Callable[[dict[str, Any]], None], *keys: Any) -> None:
    """Write root 3 as somebody who holds these keys can."""

    def edit(statement: dict[str, Any]) -> None:
        statement["predicate"]["version"] += 1
        change(statement["predicate"])
        plain = statement["predicate"]
        name = f"root@{plain['version']}"
        digest = hashlib.sha256(canonical_bytes(plain)).hexdigest()
        statement["subject"] = [{"name": name, "digest": {"sha256": digest}}]

    data = resigned(world.path / "trust/root.json", list(keys), edit)
    write(world.path / "trust/3.root.json", data)
    write(world.path / "trust/root.json", data)


@attack(r"3.root.json is signed by 0 of 1 people with the role root|which the root does not list")
def next_root_by_its_own_people_only(world: World, old: Path) -> None:
    thief = make_key()
    entry = person("thief", thief, roles=["root"]).model_dump()
    _next_root(world, lambda facts: facts["people"].update(thief=entry), thief)


@attack(r"3.root.json is signed by 0 of 1 people with the role root")
def next_root_by_the_old_people_only(world: World, old: Path) -> None:
    def hand_over(facts: dict[str, Any]) -> None:
        for entry in facts["people"].values():
            entry["roles"] = [role for role in entry["roles"] if role != "root"]
        facts["people"]["eve"]["roles"] = ["root"]

    _next_root(world, hand_over, world.keys["ana"])


@attack(r"3.root.json is root 4, expected root 3")
def a_root_left_out(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts.update(version=4), world.keys["ana"])


@attack(r"roles.approver: takes 0 people; it must take at least 1")
def threshold_of_nobody(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts["roles"].update(approver=0), world.keys["ana"])


@attack(r"roles.approver: takes -1 people; it must take at least 1")
def negative_threshold(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts["roles"].update(approver=-1), world.keys["ana"])


@attack(r"roles.root: takes 9 people, and 2 have the role")
def threshold_nobody_can_reach(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts["roles"].update(root=9), world.keys["ana"])


@attack(r"people.eve.keys.0: is the key people.ana.keys.0 too")
def one_key_for_two_people(world: World, old: Path) -> None:
    def share(facts: dict[str, Any]) -> None:
        facts["people"]["eve"]["keys"] = facts["people"]["ana"]["keys"]

    _next_root(world, share, world.keys["ana"])


@attack(r"people.ana.email: is the address of .* too|people.eve.email: is the address of ana too")
def one_person_under_two_names(world: World, old: Path) -> None:
    def share(facts: dict[str, Any]) -> None:
        facts["people"]["eve"]["email"] = "ANA@example.com"

    _next_root(world, share, world.keys["ana"])


@attack(r"people.ben.keys.0: is a key of type ecdsa-p256, not ed25519")
def algorithm_swapped_in_the_root(world: World, old: Path) -> None:
    def swap(facts: dict[str, Any]) -> None:
        facts["people"]["ben"]["keys"][0]["type"] = "ed25519"

    _next_root(world, swap, world.keys["ana"])


@attack(r"people.ben.keys.0: type is 'rsa', expected ed25519 or ecdsa-p256")
def unknown_algorithm(world: World, old: Path) -> None:
    def swap(facts: dict[str, Any]) -> None:
        facts["people"]["ben"]["keys"][0]["type"] = "rsa"

    _next_root(world, swap, world.keys["ana"])


@attack(r"root.json is not root 2, the newest in trust/")
def another_newest_root(world: World, old: Path) -> None:
    write(world.path / "trust/root.json", (world.path / "trust/1.root.json").read_bytes())


@attack(r"does not come from the root that was pinned here")
def another_root_from_the_beginning(world: World, old: Path) -> None:
    folder = world.folder / "other"
    folder.mkdir()
    other = World(folder)
    shutil.rmtree(world.path / "trust")
    shutil.copytree(other.path / "trust", world.path / "trust")


@attack(r"is of the epoch 1, the root's is 2")
def index_of_an_older_epoch(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts.update(epoch=2), world.keys["ana"])


@attack(r"which the root does not list")
def attested_with_a_key_that_was_taken_away(world: World, old: Path) -> None:
    _next_root(world, lambda facts: facts["people"]["ana"].update(
        keys=[make_key().public.to_json()]), world.keys["ana"], world.keys["ben"])  # fmt: skip
