"""Links and pictures of the documentation lead somewhere."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from docs_pages import ROOT, pages, slug

_WEB = re.compile(r"^[a-z]+:")


@pytest.mark.parametrize("each", pages(), ids=lambda p: p.name)
def test_links_resolve(each: Any):
    """Relative links name files that exist, and anchors name headings."""
    by_path = {p.path: p for p in pages()}
    for _, target in each.links:
        if _WEB.match(target):
            continue
        name, _, anchor = target.partition("#")
        path = (each.path.parent / name).resolve() if name else each.path
        assert path.exists(), f"{each.name}: {target}"
        assert path.is_relative_to(ROOT), f"{each.name}: {target}"
        if anchor and path in by_path:
            assert anchor in by_path[path].anchors, f"{each.name}: {target}"


def test_pictures_are_pictures():
    """Every image is a PNG of a readable size, below a megabyte."""
    found = [(p, t) for p in pages() for image, t in p.links if image]
    assert found
    for each, target in found:
        data = (each.path.parent / target).read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n", target
        width, height = struct.unpack(">II", data[16:24])
        assert 400 <= width <= 4000, target
        assert 100 <= height <= 6000, target
        assert len(data) < 1_000_000, target


def test_every_page_can_be_reached_from_the_readme():
    """No page is lost."""
    by_path = {p.path: p for p in pages()}
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in seen or path not in by_path:
            continue
        seen.add(path)
        targets = [t.partition("#")[0] for _, t in by_path[path].links if not _WEB.match(t)]
        waiting += [(path.parent / target).resolve() for target in targets if target]
    assert {p.name for p in by_path.values() if p.path not in seen} == set()


def test_paths_named_in_the_text_exist():
    """`toolkit/…`, `notebooks/…`, `tests/…` and the like in running text are there."""
    folders = "notebooks|templates|benchmarks|tools|tests|docs|toolkit"
    for each in pages():
        if each.name == "docs/quickstart.md":
            continue  # it speaks of the reader's own workspace
        for code in each.inline_code:
            if re.fullmatch(rf"(?:{folders})/[\w./*-]*", code) and "triage" not in code:
                assert list(ROOT.glob(code.rstrip("/"))), f"{each.name}: {code}"


def test_headings_make_anchors_as_github_does():
    """The rule that the tests above rely on."""
    assert slug("Run states and causes") == "run-states-and-causes"
    assert slug("toolkit schedule add") == "toolkit-schedule-add"
    assert slug("policy.yaml") == "policyyaml"
    assert slug("Models: `%%model`") == "models-model"


def test_no_page_names_this_machine_or_a_package_registry():
    """Pages travel: no absolute path of a user's or a temporary folder, no index of packages."""
    folders = r"/(?:work|tmp|root|home)/"
    registries = r"py(?:pi)|registry\.(?:npmjs)"
    for each in pages():
        assert not re.search(f"{folders}|{registries}", each.text, re.IGNORECASE), each.name
