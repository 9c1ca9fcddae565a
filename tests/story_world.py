"""The licence review as three people play it: the example's own notebooks, gate and cases.

Only the model is a double: it knows the Apache licence, one text of the BSD licence, and says MIT of
everything else.  Everything else is real: kernels, gateway, policy, evaluation, registry, signatures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli_world import Done, toolkit

from toolkit.app.trusting import open_registry
from toolkit.document import Notebook
from toolkit.registry import Registry
from toolkit.settings import Workspace, open_workspace

REPOSITORY = Path(__file__).resolve().parents[1]
JOB = "licence-review"
FIRST, SECOND = "notebooks/licence_review_v1.ipynb", "notebooks/licence_review.ipynb"
RULE = "promotion: {approvals: 2, from: [approver]}\n"
KNOWS = """
answers:
  - when: {contains: "Apache License"}
    data: {licence: Apache-2.0}
  - when: {contains: "Brian Granger"}
    data: {licence: BSD-3-Clause}
  - data: {licence: MIT}
"""
MODELS = """
default_route: default
providers:
  double: {kind: scripted, script: answers.yaml}
routes:
  default: &route
    provider: double
    model: double-1
    max_tokens: 64
    price: {input_per_million_usd: 0.1, output_per_million_usd: 0.4}
  licence:
    provider: double
    model: double-1
    max_tokens: 64
    price: {input_per_million_usd: 0.1, output_per_million_usd: 0.4}
""".replace(" &route", "")

CLAUSE = "    if any(match.either and not match.begins for match in matches):"
TIDIED = "    if False:  # a choice between licence files is rare"
"""A slip of two cases: the clause for packages that offer a choice of licence files is gone."""


@dataclass
class Story:
    """A signed workspace with the example; ana promotes, ben and cho approve, cho operates too."""

    workspace: Workspace
    keys: Path

    @property
    def root(self) -> Path:
        return self.workspace.root

    @property
    def registry(self) -> Registry:
        return open_registry(self.workspace)

    def act(self, person: str, *arguments: object) -> Done:
        """Run one command as somebody: that name, and that person's key."""
        with _set(
            {"TOOLKIT_USER": person, "TOOLKIT_SIGNING_KEY": f"file:{self.keys / person}.pem"}
        ):
            return toolkit(*arguments)

    @property
    def policy(self) -> Path:
        """The file with the limits of production."""
        return self.workspace.registry / "policies" / "production" / "policy.yaml"

    def begin(self) -> None:
        """Sign the registry and its policy: two approvers are needed, and ana is none."""
        public = {}
        for person in ("ana", "ben", "cho"):
            made = self.act(person, "key", "new", self.keys / f"{person}.pem", "--json")
            assert made.code == 0, made.told
            public[person] = ":".join(made.json[part] for part in ("type", "public"))
        begun = self.act(
            "ana", "trust", "init", "ana", "--name", "Ana Diaz", "--email", "ana@example.com"
        )
        assert begun.code == 0, begun.told
        roles = {
            "ben": ("approver",),
            "cho": ("approver", "operator"),
            "ana": ("promoter", "root", "policy-approver"),
        }
        for person, has in roles.items():
            who = () if person == "ana" else (
                "--name", person.title(), "--email", f"{person}@example.com", "--key", public[person],
            )  # fmt: skip
            given = [part for role in has for part in ("--role", role)]
            self.ana("trust", "add-person", person, *who, *given)
        self.ana("trust", "rotate", "--threshold", "approver=2")
        self.ana("policy", "promote", "production")

    def ana(self, *arguments: object) -> Done:
        """Something of ana's that has to work."""
        done = self.act("ana", *arguments)
        assert done.code == 0, done.told
        return done

    def offer(self, notebook: str, *options: str) -> Done:
        """Try a notebook out in the sandbox, and offer it to the gate."""
        self.ana("run", notebook, "--save", *options)
        return self.act("ana", "promote", notebook, "--name", JOB, "--json")

    def approve(self) -> list[tuple[str, Done, dict[str, int]]]:
        """Let everybody say yes to the first version; who, what came of it, and the aliases then."""
        said = []
        for person in ("ana", "ben", "ben", "cho"):
            done = self.act(person, "approve", f"{JOB}@1", "--json")
            said.append((person, done, self.registry.aliases(JOB)))
        return said

    def tidy(self) -> None:
        """Make the third version: the second one with one condition less."""
        path = self.root / SECOND
        text = path.read_text("utf-8")
        changed = text.replace(_json(CLAUSE), _json(TIDIED))
        assert changed.count(_json(TIDIED)) == 1
        path.write_text(changed, "utf-8")
        Notebook.read(path)


def write_story(root: Path) -> Story:
    """Copy the example into a workspace of its own, with the double and the rule of two people."""
    shutil.copytree(REPOSITORY / "registry", root / "registry")
    shutil.copy(REPOSITORY / "toolkit.toml", root)
    (root / "notebooks").mkdir()
    for name in (FIRST, SECOND):
        shutil.copy(REPOSITORY / name, root / name)
    (root / "registry" / "models.yaml").write_text(MODELS.lstrip(), "utf-8")
    (root / "registry" / "answers.yaml").write_text(KNOWS.lstrip(), "utf-8")
    policy = root / "registry" / "policies" / "production" / "policy.yaml"
    policy.write_text(f"{policy.read_text('utf-8')}\n{RULE}", "utf-8")
    keys = root.parent / "keys"
    keys.mkdir(mode=0o700)
    return Story(open_workspace(root), keys)


def gates(done: Done) -> list[dict[str, Any]]:
    """Return the gates of a promotion."""
    found: list[dict[str, Any]] = done.json["gates"]
    return found


def stage(done: Done, name: str) -> dict[str, Any]:
    """Return one stage of a promotion."""
    return next(each for each in done.json["stages"] if each["name"] == name)


def _json(text: str) -> str:
    return text.replace('"', '\\"')


@contextmanager
def _set(values: Mapping[str, str]) -> Any:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
