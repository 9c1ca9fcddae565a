# fmt: off
"""A second verifier, written apart from the first: standard library, yaml and cryptography only.
``decide`` returns ``None`` to accept, or why it refuses; ``state`` is state.json or ``None``."""
# ruff: noqa: E401, E701, I001, PLR0917
import base64, contextlib, hashlib, json, yaml
import datetime as dt
from pathlib import Path
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

ROLES = {"approver", "operator", "policy-approver", "promoter", "root"}
WHAT = "name version bundle_digest policy_digest evaluation_digest"
MEMBERS = {"root": "version epoch expires fresh_days people roles protected",
           "promotion": f"{WHAT} authors root_version issued",
           "approval": f"{WHAT} environment person issued expires nonce",
           "alias-move": "job epoch index aliases log root_version issued expires",
           "policy-change": "environment number policy_digest root_version issued"}
ADDED = {"root": "separate policies", "alias-move": "policies", "policy-change": "expires approvals"}

def need(condition, why):
    if not condition: raise ValueError(why)
def strict(data):
    def once(pairs):
        need(len(dict(pairs)) == len(pairs), "twin members")
        return dict(pairs)
    return json.loads(data, object_pairs_hook=once)
def sha(data): return "sha256:" + hashlib.sha256(data).hexdigest()
def text_of(path):
    for folder in (path, *path.parents[:4]): need(not folder.is_symlink(), f"{path} is reached through a link")
    need(path.is_file(), f"{path} is missing")
    return path.read_bytes()
def envelope(data):
    body = strict(data)
    payload, kind = base64.b64decode(body["payload"], validate=True), body["payloadType"]
    need(kind == "application/vnd.in-toto+json", "another payload type")
    found = [(s["keyid"], base64.b64decode(s["sig"], validate=True)) for s in body["signatures"]]
    need(found and len(dict(found)) == len(found), "no signatures, or one key twice")
    again = {"payload": base64.b64encode(payload).decode(), "payloadType": kind, "signatures": [
        {"keyid": k, "sig": base64.b64encode(s).decode()} for k, s in found]}
    need(json.dumps(again, separators=(",", ":")).encode() + b"\n" == data, "another byte form")
    pae = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    return payload, found, pae
def said(payload, kind):
    body = strict(payload)
    told = body["predicate"]
    new = set(ADDED.get(kind, "").split()) & {name for name in told if told[name] is not None}
    number = 2 if new or any("needed" in e for e in told.get("aliases", {}).values()) else 1
    kinds = ("https://in-toto.io/Statement/v1", f"urn:agent-toolkit:{kind}:{number}")
    need((body["_type"], body["predicateType"]) == kinds, "another kind of statement")
    need(set(body) == {"_type", "predicateType", "subject", "predicate"}, "odd statement")
    need(set(told) - new == set(MEMBERS[kind].split()), "odd members")
    subjects = {s["name"]: "sha256:" + s["digest"]["sha256"] for s in body["subject"]}
    need(len(subjects) == len(body["subject"]), "twin subjects")
    return told, subjects

def keys_of(root):
    found, mails = {}, {entry["email"].casefold() for entry in root["people"].values()}
    need(len(mails) == len(root["people"]), "one address for two people")
    kinds = {"ed25519": ed25519.Ed25519PublicKey, "ecdsa-p256": ec.EllipticCurvePublicKey}
    for person, entry in root["people"].items():
        need(set(entry["roles"]) <= ROLES and entry["keys"], "odd person")
        for one in entry["keys"]:
            der = base64.b64decode(one["public"], validate=True)
            key = serialization.load_der_public_key(der)
            need(isinstance(key, kinds[one["type"]]), "a key of another type")
            name = sha(one["type"].encode() + b"\0" + der)
            need(name not in found, "a key listed twice")
            found[name] = (key, person)
    return found

def people_who_signed(signed, keys):
    for name, sig in signed[1]:
        need(name in keys, "an unknown key")
        p256 = isinstance(keys[name][0], ec.EllipticCurvePublicKey)
        keys[name][0].verify(sig, signed[2], *([ec.ECDSA(hashes.SHA256())] if p256 else []))
    return {keys[name][1] for name, _ in signed[1]}

def enough(root, role, people):
    have = {p for p in people if p in root["people"] and role in root["people"][p]["roles"]}
    need(len(have) >= root["roles"][role] >= 1, f"{len(have)} with the role {role}")
def read(path, kind, root, keys, role=None):
    signed = envelope(text_of(path))
    people = people_who_signed(signed, keys)
    if role: enough(root, role, people)
    return *said(signed[0], kind), people, sha(signed[0])

def not_older(count, digest, mark, what):
    before = (mark.get("epoch", 0), mark["number"])
    need(count > before or (count, digest) == (before, mark["digest"]), what)

def roots(trust):
    before, keys, digests = None, {}, []
    while (path := trust / f"{len(digests) + 1}.root.json").exists() or not digests:
        data = text_of(path)
        signed = envelope(data)
        root, _ = said(signed[0], "root")
        need(set(root["roles"]) == ROLES and min(root["roles"].values()) >= 1, "odd thresholds")
        held = [set(entry["roles"]) for entry in root["people"].values()]
        for role, number in root["roles"].items():
            need(number <= sum(role in roles for roles in held), "more needed than there are")
        both = [r for r in held if "approver" in r and r & {"policy-approver", "root"}]
        need(not (root.get("separate") and both), "roles that are kept apart in one person")
        own = keys_of(root)
        people_who_signed(signed, {**keys, **own})
        for which, known in ((before or root, keys or own), (root, own)):
            enough(which, "root", {known[name][1] for name, _ in signed[1] if name in known})
        need(root["version"] == len(digests) + 1, "a root out of order")
        need(root["epoch"] >= (before["epoch"] if before else 1), "an epoch that went back")
        before, keys, digests = root, own, [*digests, sha(signed[0])]
    need(text_of(trust / "root.json") == data, "root.json is not the newest")
    return before, digests, keys

def check_log(registry, mark):
    lines = text_of(registry / "log/audit.jsonl")[: mark["bytes"]].splitlines(keepends=True)
    need(sum(map(len, lines)) == mark["bytes"] and len(lines) == mark["records"], "log cut")
    record = strict(lines[-1]) if lines else {}
    told = record.pop("hash", "sha256:" + "0" * 64)
    plain = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    need(not lines or sha(plain.encode()) == told, "a log record was changed")
    need(told == mark["head"], "the log was written again")

def decide(registry: Path, state, now_us, job, alias):
    try: return _decide(registry, state or {}, now_us, job, alias)
    except Exception as error: return f"{type(error).__name__}: {error}"

def _decide(registry, state, now_us, job, alias):
    need(now_us >= state.get("at_us", 0) - 300_000_000, "the clock went back")
    now = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    root, digests, keys = roots(registry / "trust")
    need(state.get("pinned", digests[0]) in digests, "not the pinned root")
    seen = state.get("root") or {"number": 1, "digest": digests[0]}
    need(digests[seen["number"] - 1 : seen["number"]] == [seen["digest"]], "an older root")
    need(now < root["expires"], "the root is stale")
    folder = registry / "jobs" / job
    index, _, _, digest = read(folder / "index.dsse.json", "alias-move", root, keys, "operator")
    need(index["job"] == job and index["epoch"] == root["epoch"], "another index")
    mark, here = state.get("indexes", {}).get(job), (index["epoch"], index["index"])
    if mark: not_older(here, digest, mark, "an older index")
    need(now < index["expires"], "the index is stale")
    for place, at in index.get("policies", {}).items():
        check_policy(registry, state, root, keys, place, at)
    check_log(registry, index["log"])
    check_log(registry, state.get("log") or index["log"])
    entry = index["aliases"][alias]
    promotion, authors = check_version(folder / str(entry["version"]), root, keys)
    need(promotion["name"] == job and promotion["version"] == entry["version"], "another version")
    need(promotion["bundle_digest"] == entry["bundle_digest"], "another bundle")
    safe, beside = root["protected"], alias
    if alias.endswith(".shadow") or ".canary-" in alias: beside = alias.rpartition(".")[0]
    rest = safe.get("production", min(safe.values(), default=None))
    own = safe.get(alias, safe.get(beside, rest))
    needed = max(root["roles"]["approver"] if own else 0, entry.get("needed", 0))
    place = own or (needed and entry["environment"])
    if not place or alias == "retired" or alias.startswith("revoked."): return
    need(entry["environment"] == place, "another environment")
    change = check_policy(registry, state, root, keys, place, None)
    need(now < change.get("expires", "9"), "the policy is stale")
    if "approvals" in change and entry["at"] >= change["issued"]:
        asks = change["approvals"]
        needed = max(needed, asks["jobs"].get(job, asks["others"]))
    used = {}
    for path in sorted((folder / "approvals").glob(f"{entry['version']}.*")):
        with contextlib.suppress(Exception):
            who, digest = check_approval(path, promotion, entry, root, keys, authors)
            if digest in entry["approvals"]: used[digest] = who
    need(set(used) == set(entry["approvals"]), "an approval is missing or does not count")
    need(len(set(used.values())) >= needed, "too few approvals")

def check_policy(registry, state, root, keys, place, named):
    path = registry / f"trust/policy-{place}.dsse.json"
    known = [m for m in (state.get("policies", {}).get(place), named) if m]
    if not (known or path.exists() or place in (root.get("policies") or ())): return {}
    change, _, _, digest = read(path, "policy-change", root, keys, "policy-approver")
    need(change["environment"] == place, "the policy of another environment")
    for mark in known: not_older((0, change["number"]), digest, mark, "an older policy")
    return change

def check_version(version, root, keys):
    path = version / "attestation.dsse.json"
    promotion, files, by, _ = read(path, "promotion", root, keys, "promoter")
    need({p.name for p in version.iterdir()} - {"attestation.dsse.json"} == set(files), "other files")
    for name, digest in files.items(): need(sha(text_of(version / name)) == digest, f"{name} was changed")
    manifest = yaml.safe_load((version / "job.yaml").read_bytes())
    for member in WHAT.split(): need(manifest[member] == promotion[member], f"job.yaml has another {member}")
    listed = {name: fact["digest"] for name, fact in manifest["files"].items()}
    need({**listed, "job.yaml": files["job.yaml"]} == files, "job.yaml lists other files")
    names = {n.strip().casefold() for n in (*promotion["authors"], manifest["by"], *by)}
    return promotion, {p for p, e in root["people"].items()
                       if names & {p, e["name"].casefold(), e["email"].casefold()}}

def check_approval(path, promotion, entry, root, keys, authors):
    approval, _, people, digest = read(path, "approval", root, keys)
    need(path.name == f"{entry['version']}.{digest[7:39]}.dsse.json", "renamed")
    need(people == {approval["person"]}, "signed by somebody else")
    for member in WHAT.split(): need(approval[member] == promotion[member], f"another {member}")
    need(approval["environment"] == entry["environment"], "another environment")
    need("approver" in root["people"][approval["person"]]["roles"], "no approver")
    need(approval["person"] not in authors, "an author")
    need(approval["issued"] <= entry["at"] < approval["expires"], "not in force")
    return approval["person"], digest
