"""Sealing, resolving and loading versions."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from registry_world import FACTS, FILES, notebook, overwrite

from toolkit.errors import (
    InfrastructureError,
    IntegrityError,
    InvalidFile,
    NotFound,
    ToolkitError,
    UsageError,
)
from toolkit.registry import Manifest, Registry, Sealed
from toolkit.values import JobRef, ManualClock, digest_bytes

WRITER = Path(__file__).with_name("seal_script.py")


def test_what_was_sealed_is_loaded(registry: Registry, sealed: Sealed) -> None:
    """Loading gives exactly the sealed bytes."""
    assert registry.load(sealed.ref) == FILES
    assert sealed.ref == "review@1"
    assert registry.jobs() == ["review"]


def test_numbers_are_dense_and_per_job(registry: Registry) -> None:
    """Each job counts from 1."""
    refs = [registry.seal(name, FILES, FACTS).ref for name in ("a", "a", "b", "a")]
    assert refs == ["a@1", "a@2", "b@1", "a@3"]
    assert registry.versions("a") == [1, 2, 3]


def test_sealed_files_are_read_only(registry: Registry, sealed: Sealed) -> None:
    """Nobody changes a version by accident."""
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in sealed.path.iterdir()}
    assert modes == dict.fromkeys(["job.yaml", *FILES], 0o444)


def test_manifest_says_what_was_promoted(registry: Registry, sealed: Sealed) -> None:
    """The facts come back as they were given, with digests and sizes of the files."""
    manifest = registry.resolve("review@1").manifest
    assert manifest.by == "ana"
    assert manifest.results == ("verdict",)
    assert manifest.timeouts == {"run_s": 600}
    assert manifest.files["evidence.json"].digest == digest_bytes(FILES["evidence.json"])
    assert manifest.files["evidence.json"].size == len(FILES["evidence.json"])
    assert manifest.bundle_digest == sealed.bundle_digest


def test_manifest_is_yaml_for_other_readers(sealed: Sealed) -> None:
    """A YAML reader sees the same facts."""
    facts = yaml.safe_load((sealed.path / "job.yaml").read_text("ascii"))
    assert facts["schema"] == "job/1"
    assert facts["parameters"] == FACTS["parameters"]
    assert facts["bundle_digest"] == sealed.bundle_digest


# YAML 1.1 readers give up on member names longer than 1,024 characters, escapes counted.
NAMES = st.text(max_size=50)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, JSON, max_size=4))
def test_any_json_survives_the_manifest(extra: dict[str, object]) -> None:
    """Reading what was written gives an equal manifest and the same bytes, for YAML readers too."""
    made = Manifest.draft("j", {"f": b""}, {"by": "ana", "extra": extra}, "now").numbered(1)
    data = made.to_bytes()
    again = Manifest.from_bytes(data, "job.yaml")
    assert again.bundle_digest == made.bundle_digest
    assert again.to_bytes() == data
    assert yaml.safe_load(data.decode("ascii"))["extra"] == again.extra


def test_text_that_is_not_unicode_is_refused(registry: Registry) -> None:
    """Half a surrogate pair cannot be read back, so it cannot be sealed."""
    with pytest.raises(InvalidFile):
        registry.seal("j", FILES, {"by": "ana", "extra": {"x": "\ud83d\ude00"}})


def test_every_fault_of_a_manifest_is_named(registry: Registry) -> None:
    """One error lists all that is wrong, and nothing is written."""
    facts = {
        "by": " ",
        "polcy_digest": "x",
        "policy_digest": "sha256:zz",
        "results": "verdict",
        "timeouts": {"run_s": -1},
        "extra": {"x": float("nan")},
    }
    with pytest.raises(InvalidFile) as caught:
        registry.seal("j", {"../evil": b"", "job.yaml": b""}, facts)
    places = {fault["where"] for fault in caught.value.details["faults"]}
    assert places == {
        "files.'../evil'",
        "files.job.yaml",
        "'polcy_digest'",
        "by",
        "policy_digest",
        "results",
        "timeouts",
        "extra",
    }
    assert registry.jobs() == []


def test_a_version_without_files_is_refused(registry: Registry) -> None:
    """There is nothing to run in it."""
    with pytest.raises(InvalidFile, match="at least one file"):
        registry.seal("j", {}, FACTS)


def test_callers_cannot_change_a_version_afterwards(registry: Registry) -> None:
    """The manifest holds copies."""
    facts = {"by": "ana", "extra": {"x": [1]}}
    manifest = Manifest.draft("j", FILES, facts, "now")
    facts["extra"]["x"].append(2)  # type: ignore[index]
    assert manifest.extra == {"x": [1]}


def test_missing_things_say_what_to_do(registry: Registry, sealed: Sealed) -> None:
    """A wrong job, alias or number is NotFound with a next step."""
    for ref in ("nothing@1", "review@7", "review@staging", "review"):
        with pytest.raises(NotFound) as caught:
            registry.resolve(ref)
        assert caught.value.next_step


def test_default_alias_is_production(registry: Registry, sealed: Sealed) -> None:
    """A reference without a selector follows ``production``."""
    registry.set_alias("review", "production", 1, by="ana")
    assert registry.resolve(JobRef("review")).number == 1


# -- tampering -----------------------------------------------------------------------------


def flips(data: bytes, bit: int) -> list[bytes]:
    """Every copy of ``data`` with one bit of one byte turned."""
    copies = []
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1 << bit
        copies.append(bytes(changed))
    return copies


def accepted(registry: Registry, sealed: Sealed, bits: range) -> list[str]:
    """Names of files of which some flipped copy was loaded."""
    found = []
    for path in sorted(sealed.path.iterdir()):
        whole = path.read_bytes()
        for bit in bits:
            for copy in flips(whole, bit):
                overwrite(path, copy)
                try:
                    registry.load(sealed.ref)
                except ToolkitError:
                    continue
                found.append(path.name)
        overwrite(path, whole)
    return found


def test_no_flipped_byte_is_accepted(registry: Registry, sealed: Sealed) -> None:
    """One bit of each byte of each file, one after the other: no copy is loaded."""
    assert accepted(registry, sealed, range(5, 6)) == []
    assert registry.load(sealed.ref) == FILES


@pytest.mark.chaos
def test_no_flipped_bit_is_accepted(registry: Registry, sealed: Sealed) -> None:
    """Each bit of each byte."""
    assert accepted(registry, sealed, range(8)) == []


def test_a_changed_file_is_named_with_both_digests(registry: Registry, sealed: Sealed) -> None:
    """The error names file, expected and actual digest."""
    overwrite(sealed.path / "evidence.json", b'{"score": 1.0}\n')
    with pytest.raises(IntegrityError) as caught:
        registry.load(sealed.ref)
    fault = caught.value.details["faults"][0]
    assert fault["where"] == "jobs/review/1/evidence.json"
    assert digest_bytes(FILES["evidence.json"]) in fault["message"]
    assert digest_bytes(b'{"score": 1.0}\n') in fault["message"]


def damage_link(folder: Path) -> None:
    twin = folder.parent / "twin"
    twin.write_bytes(FILES["evidence.json"])
    (folder / "evidence.json").unlink()
    (folder / "evidence.json").symlink_to(twin)


def damage_pipe(folder: Path) -> None:
    (folder / "evidence.json").unlink()
    os.mkfifo(folder / "evidence.json")


def damage_folder(folder: Path) -> None:
    (folder / "evidence.json").unlink()
    (folder / "evidence.json").mkdir()


DAMAGES = {
    "missing": (lambda f: (f / "evidence.json").unlink(), "evidence.json"),
    "extra": (lambda f: (f / "sitecustomize.py").write_bytes(b""), "sitecustomize.py"),
    "hidden": (lambda f: (f / ".extra").write_bytes(b""), ".extra"),
    "longer": (
        lambda f: overwrite(f / "evidence.json", FILES["evidence.json"] + b" "),
        "evidence.json",
    ),
    "empty": (lambda f: overwrite(f / "evidence.json", b""), "evidence.json"),
    "link": (damage_link, "evidence.json"),
    "pipe": (damage_pipe, "evidence.json"),
    "folder": (damage_folder, "evidence.json"),
    "no manifest": (lambda f: (f / "job.yaml").unlink(), "job.yaml"),
    "comment": (
        lambda f: overwrite(f / "job.yaml", (f / "job.yaml").read_bytes() + b"# ok\n"),
        "job.yaml",
    ),
    "twin key": (
        lambda f: overwrite(f / "job.yaml", (f / "job.yaml").read_bytes() + b'by: "eve"\n'),
        "job.yaml",
    ),
    "other author": (
        lambda f: overwrite(
            f / "job.yaml", (f / "job.yaml").read_bytes().replace(b'by: "ana"', b'by: "eve"')
        ),
        "job.yaml",
    ),
    "true for 1": (
        lambda f: overwrite(
            f / "job.yaml", (f / "job.yaml").read_bytes().replace(b"version: 1", b"version: true")
        ),
        "job.yaml",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_refused_and_verify_names_it(
    registry: Registry, sealed: Sealed, damage: str
) -> None:
    """Whatever is done to the folder, loading raises and verify names the file."""
    act, name = DAMAGES[damage]
    act(sealed.path)
    with pytest.raises(ToolkitError) as caught:
        registry.load(sealed.ref)
    assert caught.value.exit_code == 78
    assert any(fault.where.endswith(f"jobs/review/1/{name}") for fault in registry.verify())


def test_a_version_swapped_for_another_is_refused(registry: Registry) -> None:
    """A folder that was sealed as version 1 is not accepted as version 2."""
    one = registry.seal("a", FILES, FACTS)
    two = registry.seal("a", {"notebook.ipynb": b"{}"}, FACTS)
    two.path.rename(two.path.with_name("9"))
    one.path.rename(two.path)
    with pytest.raises(IntegrityError, match="expected a@2"):
        registry.load("a@2")


def test_a_version_that_changes_after_resolving_is_refused(registry: Registry) -> None:
    """What was resolved is what is loaded, even if another valid version took its place."""
    one = registry.seal("a", FILES, FACTS)
    found = registry.resolve("a@1")
    other = Registry(registry.root.parent / "other")
    twin = other.seal("a", {"notebook.ipynb": b"{}"}, FACTS)
    one.path.rename(one.path.with_name("old"))
    twin.path.rename(one.path)
    with pytest.raises(IntegrityError, match="expected sha256:"):
        registry.load(found)


def test_a_linked_job_or_version_folder_is_not_followed(registry: Registry, sealed: Sealed) -> None:
    """Links below the registry lead nowhere."""
    away = registry.root.parent / "away"
    sealed.path.rename(away)
    sealed.path.symlink_to(away)
    with pytest.raises(IntegrityError, match="not a folder"):
        registry.load("review@1")


# -- names ---------------------------------------------------------------------------------

HOSTILE = [
    "../x",
    "..",
    ".",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "a\x00b",
    "a\nb",
    "A",
    "con",
    "a" * 65,
    "",
    " ",
    ".sealing-1",
    "pr\u043ed",
    "a\u200bb",
    "a\u2010b",
    "-rf",
    "~",
    "{x}",
    "%2e%2e",
    "aliases.json/..",
    "x..y",
    "1.",
]


@settings(max_examples=300)
@given(st.sampled_from(HOSTILE) | st.text(max_size=80))
def test_names_never_reach_outside(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    """For any text as job, file, alias and reference, nothing appears beside the registry."""
    top = tmp_path_factory.getbasetemp() / "names"
    registry = Registry(top / "inner" / "registry")
    if not registry.jobs():
        registry.seal("job", FILES, FACTS)
    attempts = (
        lambda: registry.seal(name, FILES, FACTS),
        lambda: registry.seal("job", {name: b"x"}, FACTS),
        lambda: registry.set_alias("job", name, 1, by="ana"),
        lambda: registry.resolve(name),
        lambda: registry.versions(name),
        lambda: registry.record(name, {}),
    )
    for attempt in attempts:
        with suppress(ToolkitError):
            attempt()
    assert [p.name for p in top.iterdir()] == ["inner"]
    assert [p.name for p in (top / "inner").iterdir()] == ["registry"]
    assert {p.name for p in registry.root.iterdir()} <= {"jobs", "log", ".locks"}
    for job in (registry.root / "jobs").iterdir():
        assert all(p.name.isdigit() or p.name == "aliases.json" for p in job.iterdir())


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(registry: Registry, name: str) -> None:
    """None of the classics is a job, a file or an alias."""
    with pytest.raises(UsageError):
        registry.seal(name, FILES, FACTS)
    with pytest.raises(InvalidFile):
        registry.seal("job", {name: b""}, FACTS)
    with pytest.raises(UsageError):
        registry.set_alias("job", name, 1, by="ana")


# -- failing disks -------------------------------------------------------------------------


def test_a_disk_that_stores_only_a_part_publishes_nothing(tmp_path: Path) -> None:
    """With files limited to 64 KiB, a file of 100,000 bytes makes an error and no version."""
    argv = [sys.executable, str(WRITER), str(tmp_path / "r"), "big", "--limit", "65536"]
    done = subprocess.run([*argv, "--bytes", "100000"], capture_output=True, text=True)
    assert done.returncode == InfrastructureError.exit_code, done.stderr
    registry = Registry(tmp_path / "r")
    assert registry.versions("big") == []
    assert list((tmp_path / "r/jobs/big").iterdir()) == []
    subprocess.run([*argv, "--bytes", "1000"], check=True)
    assert registry.versions("big") == [1]
    assert registry.verify() == []


def test_leftovers_are_ignored_and_swept_after_a_day(
    registry: Registry, sealed: Sealed, clock: ManualClock
) -> None:
    """A folder that a crash left is no version, and is deleted once it is a day old."""
    leftover = sealed.path.parent / ".sealing-0123456789abcdef"
    leftover.mkdir()
    (leftover / "job.yaml").write_bytes((sealed.path / "job.yaml").read_bytes())
    clock.us = round(leftover.stat().st_mtime * 1e6)
    assert registry.versions("review") == [1]
    assert registry.verify() == []
    registry.seal("review", FILES, FACTS)
    assert leftover.exists()
    clock.advance(seconds=86_401)
    registry.seal("review", FILES, FACTS)
    assert not leftover.exists()


def test_taken_numbers_are_skipped(registry: Registry, sealed: Sealed) -> None:
    """Whatever has the next number as its name keeps it."""
    (sealed.path.parent / "2").write_bytes(b"not a version")
    assert registry.seal("review", FILES, FACTS).version == 3


# -- diff ----------------------------------------------------------------------------------


def test_diff_lists_files_parameters_facts_and_cells(registry: Registry) -> None:
    """Two versions differ in data, cell by cell."""
    registry.seal("a", {"notebook.ipynb": notebook(a="1", b="2", c="3", d="4")}, FACTS)
    changed = {
        **FACTS,
        "by": "ben",
        "parameters": {"properties": {"limit": {"type": "number"}, "x": {}}},
    }
    files = {"notebook.ipynb": notebook(d="4", a="1", b="20", e="5"), "report.html": b"<p>"}
    registry.seal("a", files, changed)
    diff = registry.diff("a@1", "a@2")
    assert diff
    assert [(f.path, f.change) for f in diff.files] == [
        ("notebook.ipynb", "changed"),
        ("report.html", "added"),
    ]
    assert [(p.name, p.change) for p in diff.parameters] == [("limit", "changed"), ("x", "added")]
    assert [(f.name, f.before, f.after) for f in diff.facts] == [("by", "ana", "ben")]
    assert [(c.cell, c.change, c.before, c.after) for c in diff.cells] == [
        ("c", "removed", "3", None),
        ("d", "moved", "4", "4"),
        ("b", "changed", "2", "20"),
        ("e", "added", None, "5"),
    ]


def _kept(tools: dict[str, object], **evidence: object) -> dict[str, bytes]:
    catalog = {"schema": "tools/1", "tools": tools, "servers": {"mail": f"sha256:{len(tools)}"}}
    return {
        "tools.json": json.dumps(catalog).encode(),
        "evidence.json": json.dumps(evidence).encode(),
    }


def test_diff_says_which_tool_and_which_set_changed(registry: Registry) -> None:
    """Of a tool only the members that differ; what an older version did not keep is not known."""
    pay, read = {"effect": "write", "external": False}, {"effect": "read"}
    registry.seal("a", _kept({"pay": pay, "read": read}, evaluation_sets={"x": "1"}), FACTS)
    second = _kept({"pay": {**pay, "external": True}}, evaluation_sets={"x": "2", "y": "3"})
    registry.seal("a", second, FACTS)
    registry.seal("a", {"notebook.ipynb": notebook(a="1")}, FACTS)
    diff = registry.diff("a@1", "a@2")
    assert [(c.name, c.change, c.before, c.after) for c in diff.tools] == [
        ("pay", "changed", {"external": False}, {"external": True}),
        ("read", "removed", {"effect": "read"}, None),
        ("server mail", "changed", {"reached": "sha256:2"}, {"reached": "sha256:1"}),
    ]
    assert [(c.name, c.change) for c in diff.sets] == [("x", "changed"), ("y", "added")]
    assert diff.tools_unknown == ()
    older = registry.diff("a@2", "a@3")
    assert (older.tools, older.tools_unknown) == ((), ("a@3",))


def test_diff_compares_the_workspaces_packages_where_nothing_is_locked(registry: Registry) -> None:
    """Both versions must have recorded them."""
    registry.seal("a", _kept({}, distributions=["rich==1.0", "numpy==2.0"]), FACTS)
    registry.seal("a", _kept({}, distributions=["rich==1.1", "numpy==2.0"]), FACTS)
    registry.seal("a", _kept({}), FACTS)
    (changed,) = registry.diff("a@1", "a@2").packages
    assert (changed.name, changed.before, changed.after) == ("rich", "1.0", "1.1")
    assert registry.diff("a@2", "a@3").packages == ()


def test_equal_versions_have_no_diff(registry: Registry) -> None:
    """The same content twice is an empty, false diff."""
    registry.seal("a", FILES, FACTS)
    registry.seal("a", FILES, FACTS)
    assert not registry.diff("a@1", "a@2")


def test_diff_refuses_a_damaged_version(registry: Registry, sealed: Sealed) -> None:
    """Nothing unverified is shown as a version's content."""
    registry.seal("review", FILES, FACTS)
    overwrite(sealed.path / "notebook.ipynb", b"{}")
    with pytest.raises(IntegrityError):
        registry.diff("review@1", "review@2")
