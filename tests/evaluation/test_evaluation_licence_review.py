"""The example set and its notebooks: the files agree, the labels are true, the rules work."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import types
from importlib import metadata
from pathlib import Path

import pytest

from toolkit.evaluation import EvaluationSet

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "registry/evaluations/licence-review"
NOTEBOOKS = ("licence_review", "licence_review_v1", "second_opinion")


def load(name: str) -> types.ModuleType:
    """Import a script of ``tools/``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def cases_script() -> types.ModuleType:
    return load("build_cases")


@pytest.fixture(scope="module")
def notebooks_script() -> types.ModuleType:
    return load("build_notebooks")


@pytest.fixture(scope="module")
def licence_set() -> EvaluationSet:
    return EvaluationSet.load(FOLDER)


@pytest.fixture(scope="module")
def rules() -> types.ModuleType:
    """The cells of the notebook that are plain Python: families, matching, decision."""
    cells = json.loads((ROOT / "notebooks/licence_review.ipynb").read_text("utf-8"))["cells"]
    source = {cell["id"]: "".join(cell["source"]) for cell in cells}
    module = types.ModuleType("licence_rules")
    sys.modules["licence_rules"] = module  # dataclasses look their module up
    header = "import re\nfrom dataclasses import dataclass\n"
    text = "\n\n".join([header, source["families"], source["matching"], source["finding"]])
    exec(compile(text, "licence_rules", "exec"), module.__dict__)
    return module


def test_the_set_holds_names_and_ids_and_no_text_of_others(licence_set):
    """Cases name a distribution and an SPDX expression, nothing longer."""
    assert len(licence_set.cases) >= 60
    for case in licence_set.cases:
        assert case.inputs == {"name": case.id}
        assert set(case.expected) == {"licence"}
        assert len(case.expected["licence"]) < 80


def test_the_labels_are_what_the_installed_packages_declare(licence_set, cases_script):
    """Each label equals the normalised License-Expression of the package, where it is installed."""
    compared = 0
    for case in licence_set.cases:
        try:
            declared = metadata.metadata(case.id).get("License-Expression")
        except metadata.PackageNotFoundError:
            continue
        if declared:
            compared += 1
            assert case.expected["licence"] == cases_script.normalised(declared), case.id
    assert compared >= 0.9 * len(licence_set.cases)


def test_the_halves_are_decided_by_the_names(licence_set, cases_script):
    """Nobody chose which packages are held out, and both halves are of use."""
    assert all(case.slice == cases_script.half(case.id) for case in licence_set.cases)
    sizes = [sum(c.slice == part for c in licence_set.cases) for part in licence_set.slices]
    assert min(sizes) >= 25


def test_expressions_have_one_form(cases_script):
    """Order and case of an expression do not matter; an unknown licence is refused."""
    assert cases_script.normalised("MIT OR apache-2.0") == "Apache-2.0 OR MIT"
    with pytest.raises(ValueError, match="Foo"):
        cases_script.normalised("Foo")


def test_the_notebooks_are_what_their_sources_say():
    """The committed notebooks were built from ``tools/notebooks``."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/build_notebooks.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_building_keeps_the_outputs_of_cells_that_did_not_change(notebooks_script):
    """A rebuilt notebook keeps outputs where the source is the same, and only there."""
    first = notebooks_script.build(
        notebooks_script.read_source("# %% id=a\n1\n\n# %% id=b tags=parameters\n2\n"), None
    )
    for cell in first.cells:
        cell.execution_count = 1
    text = "# %% id=a\n1\n\n# %% id=b tags=parameters\n3\n"
    second = notebooks_script.build(notebooks_script.read_source(text), first)
    assert [cell.execution_count for cell in second.cells] == [1, None]
    assert second.cells[1].metadata["tags"] == ["parameters"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_never_read_the_declared_licence(name):
    """No tool looks at the metadata fields that hold the truth of the evaluation set."""
    text = (ROOT / f"notebooks/{name}.ipynb").read_text("utf-8")
    assert "License-Expression" not in text
    assert "license_expression" not in text
    assert '"License\\"' not in text


@pytest.mark.parametrize("name", NOTEBOOKS[:2])
def test_the_agent_of_the_set_is_defined_in_the_notebook(licence_set, name):
    """Both versions define the agent and every parameter that the set sets."""
    cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text("utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    assert f"@toolkit.agent\ndef {licence_set.agent}(name: str)" in text
    (parameters,) = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    assert all(f"{p}: int = " in "".join(parameters["source"]) for p in licence_set.parameters)


def text_of(rules, spdx: str) -> str:
    """The shortest text that carries a licence's phrases."""
    return ". ".join(needed for s, phrases, _ in rules.FAMILIES if s == spdx for needed in phrases)


def test_each_family_is_told_apart_from_the_others(rules):
    """A text with one licence's phrases is that licence and no other."""
    for spdx in {family[0] for family in rules.FAMILIES}:
        assert [found for _, found in rules.found_in(text_of(rules, spdx).upper())] == [spdx]


def test_every_family_has_a_risk_class(rules):
    """No licence can be claimed without saying what it means."""
    assert {family[0] for family in rules.FAMILIES} == set(rules.RISK)
    assert set(rules.RISK.values()) < set(rules.CLASSES)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ([("LICENSE", ["MIT"], False)], "MIT"),
        ([("LICENSE", [], False)], None),
        ([("LICENSE", ["MIT"], False), ("vendor/x/LICENSE", ["ISC"], False)], "MIT"),
        ([("LICENSE", ["MIT"], False), ("vendor/x/LICENSE", ["MPL-2.0"], False)], "needs a person"),
        ([("LICENSE", ["MPL-2.0"], False), ("vendor/x/LICENSE", ["MIT"], False)], "MPL-2.0"),
        ([("LICENSE", ["MIT", "PSF-2.0"], False)], "needs a person"),
        ([("A", ["MIT"], False), ("B", ["Apache-2.0"], False)], "needs a person"),
        (
            [("LICENSE", [], True), ("A", ["MIT"], False), ("B", ["Apache-2.0"], False)],
            "Apache-2.0 OR MIT",
        ),
    ],
)
def test_the_rules_claim_a_licence_only_when_the_files_agree(rules, files, licence):
    """Bundled copyleft, two licences in one file or in two files: a person decides."""
    matches = [
        rules.FileMatch(path, [(i * 10, spdx) for i, spdx in enumerate(found)], either)
        for path, found, either in files
    ]
    assert rules.decide(matches).licence == licence


def test_a_choice_counts_with_its_mildest_part(rules):
    """Who may choose, chooses what binds least."""
    assert rules.risk_of("GPL-3.0-only OR MIT") == "permissive"
