"""Imports against declared dependencies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from toolkit.environments import Provided, provided

Places = Callable[..., list[tuple[str, int | None, int | None]]]


def block(*requirements: str) -> str:
    return f"# /// script\n# dependencies = {list(requirements)!r}\n# ///\n"


def test_what_nothing_provides_is_found_where_it_is_imported(places: Places) -> None:
    """Once per module, at its first place; the standard library and the toolkit are there."""
    cells = (block("pandas>=3"), "import os, json\nimport pandas as pd\nimport yaml.nodes")
    found = places(*cells, "from yaml import nodes", "import IPython, pydantic")
    assert found == [("undeclared-import", 4, 3)]


def test_a_distribution_may_have_another_name_than_its_module(places: Places) -> None:
    """yaml is PyYAML's, by the metadata of what is installed."""
    assert places(block("PyYAML"), "import yaml") == []


def test_what_comes_with_another_package_is_a_warning(check: Callable[..., Any]) -> None:
    """numpy comes with pandas: today."""
    report = check(block("pandas>=3"), "import numpy")
    assert [(f.rule, f.severity.value) for f in report.findings] == [("indirect-import", "warning")]


def test_what_may_come_from_a_package_that_is_not_installed_is_a_warning(
    check: Callable[..., Any],
) -> None:
    """Nobody can look inside; its own name is known."""
    report = check(block("not-installed-here"), "import not_installed_here\nimport surprise")
    assert [(f.rule, f.line) for f in report.findings] == [("indirect-import", 2)]


def test_an_import_that_may_fail_is_no_finding(places: Places) -> None:
    """The notebook says itself that it can do without."""
    source = "try:\n    import yaml\nexcept ImportError:\n    yaml = None"
    assert places(block(), source) == []
    assert places(block(), "try:\n    import yaml\nfinally:\n    pass") == [
        ("undeclared-import", 4, 2)
    ]


def test_a_notebook_that_declares_nothing_is_not_held_to_it(places: Places) -> None:
    """It runs in the workspace's own environment."""
    assert places("import yaml, pandas") == []


def test_a_faulty_declaration_is_the_only_finding(places: Places) -> None:
    """What else is missing shows when it can be read."""
    assert places(block("x @ https://host/x"), "import yaml") == [("bad-dependencies", 3, 2)]


@pytest.mark.parametrize(
    ("module", "declared", "by"),
    [
        ("json", (), Provided.BASE),
        ("toolkit", (), Provided.BASE),
        ("yaml", ("pyyaml",), Provided.DECLARED),
        ("numpy", ("pandas",), Provided.INDIRECT),
        ("yaml", ("pandas",), Provided.NOBODY),
        ("yaml", ("nobody-has-this",), Provided.UNKNOWN),
    ],
)
def test_who_provides_a_module(module: str, declared: tuple[str, ...], by: Provided) -> None:
    """By metadata where it is installed, by name where it is not."""
    assert provided(module, declared) is by
