"""The lock's one form, the kernel side's wheel, the workspace's own list, and the commands."""

from __future__ import annotations

import ast
import io
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from cli_world import toolkit
from hypothesis import example, given
from hypothesis import strategies as st
from packaging.requirements import Requirement
from workspace_world import write_workspace

from toolkit.app.environments import environment_tags
from toolkit.app.workbench import open_workbench
from toolkit.environments import (
    KERNEL_REQUIREMENTS,
    KernelSide,
    Lock,
    LockedPackage,
    WorkspaceEnvironment,
)
from toolkit.errors import InvalidFile
from toolkit.registry import Manifest

ROOT = Path(__file__).parents[2]
LOCK = Lock(
    "3.11",
    "linux-x86_64",
    ("tiny>=1",),
    (LockedPackage("helper", "1.0", ("a" * 64,)), LockedPackage("tiny", "2.0", ("b" * 64,))),
)

# -- lock/1 -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lock/1", "lock/2", "it is not lock/1"),
        ("tiny==2.0", "tiny>=2.0", "line 7: it is not a pin"),
        ("tiny==2.0", "tiny @ https://ana:s3cret@host/x.whl", "line 7: it is not a pin"),
        ("tiny==2.0", "--index-url https://ana:s3cret@host", "line 7: it is not a pin"),
        ("tiny==2.0", "helper==2.0", "line 7: helper appears twice"),
        ("sha256:" + "b" * 64, "md5:" + "b" * 32, "line 7: it is not a pin"),
        ("tiny==2.0", "Tiny==2.0", "not the one form"),
        ("helper==1.0", "helper==1.0  # fine", "line 5: it is not a pin"),
        ('["tiny>=1"]', '"tiny', "its head cannot be read"),
        ('["tiny>=1"]', "[" * 10_000, "its head cannot be read"),
        ("# declared", "# more: x\n# declared", "its head cannot be read"),
    ],
)
def test_a_lock_has_one_form(old: str, new: str, said: str) -> None:
    """Every other line is refused with its number, and without what stands in it."""
    text = LOCK.to_bytes().decode()
    assert Lock.parse(text.encode()) == LOCK
    with pytest.raises(InvalidFile) as caught:
        Lock.parse(text.replace(old, new, 1).encode())
    assert said in caught.value.message
    assert "s3cret" not in caught.value.message


_PARTS = st.sampled_from(
    [b"# lock/1\n", b"# python: 3.11\n", b"# platform: x\n", b'# declared: ["a"]\n', b"a==1 \\\n"]
)
_MORE = st.sampled_from([b"    --hash=sha256:" + b"c" * 64 + b"\n", b"\\\n", b"\xff", b"\r", b""])


@given(st.lists(_PARTS | _MORE | st.binary(max_size=6), max_size=10))
@example([b"\\\n", b"\r"])  # nothing but a continued line
def test_any_bytes_are_a_lock_in_its_form_or_refused(parts: list[bytes]) -> None:
    """What is accepted is written again as the same bytes."""
    data = b"# lock/1\n" + b"".join(parts)
    try:
        lock = Lock.parse(data)
    except InvalidFile:
        return
    assert lock.to_bytes() == data


# -- the kernel's half ------------------------------------------------------------------------


def test_the_wheel_is_the_same_for_the_same_source() -> None:
    """Its bytes depend on the source alone, and its version tells the source."""
    side = KernelSide.running()
    again = KernelSide(side.requirements, side.files, side.version)
    assert (again.wheel, again.file_name) == (side.wheel, side.file_name)
    other = KernelSide(side.requirements, (*side.files, ("toolkit/x.py", b"")), side.version)
    assert other.file_name != side.file_name
    with zipfile.ZipFile(io.BytesIO(side.wheel)) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[-1].endswith(".dist-info/RECORD")


def test_the_kernel_side_needs_what_the_toolkit_needs() -> None:
    """The same ranges as in pyproject.toml, where it names them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {r.name: r.specifier for r in map(Requirement, project["dependencies"])}
    ours = {r.name: r.specifier for r in map(Requirement, KERNEL_REQUIREMENTS)}
    assert {name: ours[name] for name in ours if name in wanted} == {
        name: wanted[name] for name in ("httpx", "pydantic")
    }
    assert ours["ipykernel"].contains(metadata.version("ipykernel"))


def test_the_kernel_side_imports_nothing_that_it_does_not_hold() -> None:
    """No module of the wheel imports another room, or a package that no kernel has, when loaded."""
    files = {name: data for name, data in KernelSide.running().files if name.endswith(".py")}
    rooms = {name.removeprefix("toolkit/").split("/")[0].removesuffix(".py") for name in files}
    known = {*sys.stdlib_module_names, *_closure("ipykernel", "httpx", "pydantic")}
    wrong = []
    for name, data in files.items():
        for node in ast.parse(data).body:
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            for module in modules:
                top, _, rest = module.partition(".")
                held = rest.split(".")[0] in rooms or not rest if top == "toolkit" else top in known
                if not held:
                    wrong.append((name, module))
    assert wrong == []


def _closure(*names: str) -> set[str]:
    """Modules of distributions and of what they need, by what is installed here."""
    seen: set[str] = set()
    queue = list(names)
    while queue:
        name = queue.pop().lower().replace("_", "-")
        if name in seen:
            continue
        seen.add(name)
        needed = map(Requirement, metadata.requires(name) or ())
        queue += [r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})]
    givers = metadata.packages_distributions()
    return {m for m, ds in givers.items() if {d.lower().replace("_", "-") for d in ds} & seen}


# -- the workspace's own ----------------------------------------------------------------------


def test_the_workspaces_list_is_what_is_installed() -> None:
    """Names and versions as their metadata has them; the digest is that of the list."""
    own = WorkspaceEnvironment.current()
    listed = dict(pin.split("==") for pin in own.distributions)
    for name in ("httpx", "pydantic", "jupyterlab", "papermill"):
        assert listed[name] == metadata.version(name)
    assert own.digest == WorkspaceEnvironment.current().digest
    changed = WorkspaceEnvironment(own.python, own.distributions[1:])
    assert changed.digest != own.digest


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "ws"
    root.mkdir()
    write_workspace(root)
    monkeypatch.chdir(root)
    return root


def test_a_run_records_its_environment(home: Path) -> None:
    """A locked one by its digest; the workspace's own too, and whether it has changed since."""
    own = WorkspaceEnvironment.current()
    old = WorkspaceEnvironment(own.python, ("tiny==1.0",))
    files = {"notebook.ipynb": b"{}"}
    with open_workbench() as bench:
        for told, changed in (("production", False), (own.to_json(), False), (old.to_json(), True)):
            facts = {"by": "ana", "environment": told}
            draft = Manifest.draft("job", files, facts, "2026-11-21T00:00:00.000000Z")
            tags = environment_tags(bench, draft, files)
            assert tags["environment_digest"] == own.digest
            assert ("environment_changed" in tags) is changed
        tags = environment_tags(bench, draft, {**files, "requirements.lock": LOCK.to_bytes()})
        assert tags == {"environment_digest": bench.environments.digest_of(LOCK)}


def test_the_commands_tell_of_a_workspace_without_environments(home: Path) -> None:
    """Nothing to list, to verify or to prune; a digest that is not there is not found."""
    assert toolkit("environments", "list", "--json").json == {"environments": []}
    assert toolkit("environments", "verify", "--json").json == {"ok": True, "environments": []}
    assert toolkit("environments", "prune", "--json").json == {"deleted": []}
    assert toolkit("environments", "verify", "abc").code == 78
    assert toolkit("environments", "prune", "--older-than", "soon").code == 2
