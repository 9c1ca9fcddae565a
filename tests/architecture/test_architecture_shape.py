"""The shape of the code: rooms, sizes, names, and what may not stand in a committed file."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import toolkit

ROOT = Path(__file__).parents[2]
PACKAGE = Path(toolkit.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
ROOMS = sorted([p.parent for p in PACKAGE.glob("*/__init__.py")] + [PACKAGE / "errors.py"], key=str)
# Commands load the rooms that they need when they need them; the package's root is lazy.
LAZY = {"cli", "app", "__init__.py"}


def name_of(path: Path) -> str:
    """Return a module's path as people say it."""
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def test_imports_go_down_only() -> None:
    """The contract of pyproject.toml holds: layers, one owner per vendor, a light kernel side."""
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert " 0 broken" in done.stdout
    assert "rooms: imports go down only KEPT" in done.stdout


def test_modules_are_at_most_400_lines() -> None:
    """A module is read in one sitting."""
    long = {name_of(p): n for p in MODULES if (n := len(p.read_text("utf-8").splitlines())) > 400}
    assert long == {}


def test_functions_are_at_most_60_lines() -> None:
    """A function is seen on one screen."""
    long = {
        f"{name_of(path)}:{function.lineno} {function.name}": lines
        for path in MODULES
        for function in functions(tree_of(path))
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > 60
    }
    assert long == {}


def test_rooms_are_imported_at_the_top_of_a_module() -> None:
    """An import in a function hides an arrow between rooms; only entrances may be lazy."""
    hidden = []
    for path in MODULES:
        inside = path.relative_to(PACKAGE)
        if inside.parts[0] in LAZY:
            continue
        for function in functions(tree_of(path)):
            for node in ast.walk(function):
                names = []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                for name in names:
                    home = f"toolkit.{inside.parts[0].removesuffix('.py')}"
                    if name.split(".")[0] == "toolkit" and not f"{name}.".startswith(f"{home}."):
                        hidden.append(f"{name_of(path)}:{node.lineno} {name}")
    assert hidden == []


def test_rooms_are_entered_through_their_front_door() -> None:
    """Nobody imports from a module inside of another room, except those that are named public."""
    public = {
        "toolkit.app",  # loads nothing by itself: each entrance takes the part that it needs
        "toolkit.client.wire",  # the words of the wire, shared by both ends
        "toolkit.promotion.check",  # a room inside a room, with a front door of its own
        "toolkit.isolation.inside",  # what a kernel just forked needs, and no more
        "toolkit.gateway.app",  # Handler: what an extension of the gateway is made of
    }
    wrong = []
    for path in MODULES:
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
                "toolkit."
            ):
                continue
            parts = str(node.module).split(".")
            open_ = {".".join(parts[:2]), ".".join(parts[:3])} & public
            if len(parts) > 2 and parts[1] != room and not open_:
                wrong.append(f"{name_of(path)}:{node.lineno} {node.module}")
    assert wrong == []


@pytest.mark.parametrize("room", [p for p in ROOMS if p.stem != "app"], ids=lambda p: p.stem)
def test_what_a_room_shows_is_what_it_lists(room: Path) -> None:
    """``__all__`` is sorted, without twins, and equal to the room's public names."""
    module = importlib.import_module(f"toolkit.{room.stem}")
    listed = list(module.__all__)
    assert listed == sorted(set(listed), key=_ruff_order)
    assert [name for name in listed if not hasattr(module, name)] == []
    own = {name for name, value in vars(module).items() if _is_own(module, name, value)}
    assert own - set(listed) == set()


def _is_own(module: types.ModuleType, name: str, value: object) -> bool:
    """Whether a name in a room's front door is the room's own and public."""
    if (
        name.startswith("_")
        or isinstance(value, types.ModuleType)
        or name in ("annotations", "TYPE_CHECKING")
    ):
        return False
    home = getattr(value, "__module__", None)  # constants have none
    return home is None or f"{home}.".startswith(f"{module.__name__}.")


def _ruff_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest: the order that the linter keeps."""
    kind = 0 if name.isupper() else 1 if name[:1].isupper() else 2
    return kind, name


@pytest.mark.parametrize("room", [p for p in ROOMS if p.is_dir()], ids=lambda p: p.stem)
def test_a_room_says_what_it_is_for(room: Path) -> None:
    """The front door's docstring begins with a sentence and holds the room's rules."""
    text = ast.get_docstring(tree_of(room / "__init__.py")) or ""
    assert text.splitlines()[0].endswith("."), room
    assert re.search(r"^Rules$", text, re.MULTILINE), f"{room.name} has no Rules"


def test_the_root_shows_its_names_without_loading_them() -> None:
    """``dir(toolkit)`` is what completion shows; every name resolves."""
    assert dir(toolkit) == sorted(toolkit.__all__)
    assert len(toolkit.__all__) <= 20
    assert all(getattr(toolkit, name) is not None for name in toolkit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'mlflow'"):
        _ = toolkit.mlflow


def test_every_file_of_the_package_is_installed_with_it() -> None:
    """Templates, starters and settings are found by whoever installs a wheel, not a checkout."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["toolkit"]
    listed = {path for pattern in patterns for path in PACKAGE.glob(pattern)}
    left = [
        name_of(path)
        for path in committed()
        if path.is_relative_to(PACKAGE) and path.suffix != ".py" and path not in listed
    ]
    assert left == []


def committed() -> list[Path]:
    """Return the files that git tracks, or all source files where there is no git."""
    done = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        return [p for folder in ("toolkit", "tests", "docs") for p in (ROOT / folder).rglob("*.*")]
    return [ROOT / name for name in done.stdout.split("\0") if name]


def texts() -> Iterator[tuple[str, str]]:
    for path in committed():
        if path.is_file() and path.suffix not in (".png", ".jpg", ".gif", ".bin", ".db"):
            yield name_of(path), path.read_text("utf-8", "replace")


def test_nothing_is_mocked() -> None:
    """Doubles are real classes of the same interface, and our own code is never patched."""
    mocking = re.compile(
        r"unittest[.]mock|from unittest import mock|^import mock|mocker\b", re.MULTILINE
    )
    patching = re.compile(r"monkeypatch\.setattr\(\s*[\"']?toolkit")
    here = name_of(Path(__file__))
    found = [
        name
        for name, text in texts()
        if name.endswith(".py") and name != here and (mocking.search(text) or patching.search(text))
    ]
    assert found == []


def test_no_file_names_a_package_registry_or_a_machine() -> None:
    """Where packages come from and where the checkout lies is each machine's own business."""
    # Put together here, so that this file does not name them either.
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "com"),
             ("anaconda", "org"), ("jsdelivr", "net"), ("unpkg", "com"), ("proxy", "golang", "org"))]  # fmt: skip
    places = [
        f"/{'/'.join(parts)}/" for parts in (("work", "main"), ("work", "shared"), ("tmp", "brief"))
    ]
    if len(ROOT.parts) > 2:
        places.append(f"{ROOT}/")
    found = [
        f"{name}: {word}" for name, text in texts() for word in (*hosts, *places) if word in text
    ]
    assert found == []


def test_every_test_says_what_behaviour_it_shows() -> None:
    """A test's docstring is one sentence of what a reader may rely on."""
    silent = [
        f"{name_of(path)}:{function.lineno} {function.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for function in functions(tree_of(path))
        if function.name.startswith("test_") and not ast.get_docstring(function)
    ]
    assert silent == []
