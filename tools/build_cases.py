"""Regenerate the cases of the evaluation set ``licence-review`` from the installed packages.

A case is a dependency of this project (development tools excluded) that declares a
``License-Expression``; the expectation is that expression, normalised.  Run it after a change of
pins::

    python tools/build_cases.py            # write
    python tools/build_cases.py --check    # exit 1 if the file would change
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
from importlib import metadata
from pathlib import Path

from license_expression import Licensing, get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = "agent-toolkit"
CASES = Path(__file__).resolve().parents[1] / "registry/evaluations/licence-review" / "cases.jsonl"


def dependencies(project: str) -> set[str]:
    """Return the installed dependencies of a distribution, and theirs, on this platform."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting: list[tuple[str, frozenset[str]]] = [(project, frozenset())]
    while waiting:
        name, extras = waiting.pop()
        for line in _requires(name):
            requirement = Requirement(line)
            if requirement.marker and not any(
                requirement.marker.evaluate({"extra": extra}) for extra in (extras or {""})
            ):
                continue
            found = (str(canonicalize_name(requirement.name)), frozenset(requirement.extras))
            if found not in seen:
                seen.add(found)
                waiting.append(found)
    return {name for name, _ in seen if _installed(name)}


def _requires(name: str) -> list[str]:
    return (metadata.requires(name) or []) if _installed(name) else []


def _installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def _spdx() -> Licensing:
    return get_spdx_licensing()


def normalised(expression: str) -> str:
    """Return an SPDX expression with its parts in one order.

    Raises:
        ValueError: The expression names a licence that SPDX does not know.
    """
    licensing = _spdx()
    found = licensing.validate(expression)
    if found.errors:
        raise ValueError("; ".join(found.errors))
    return str(licensing.parse(expression).simplify())


def half(name: str) -> str:
    """Return the slice of a package: decided by a hash of its name, so that nobody chose it."""
    held_out = hashlib.sha256(name.encode()).digest()[0] % 2
    return "held-out" if held_out else "developed"


def cases() -> list[dict[str, object]]:
    """Return one case per dependency that declares an expression, by name."""
    made: list[dict[str, object]] = []
    for name in sorted(dependencies(PROJECT)):
        declared = metadata.metadata(name).get("License-Expression")
        if not declared:
            continue
        try:
            licence = normalised(declared)
        except ValueError as error:
            print(f"{name}: {error}; left out", file=sys.stderr)
            continue
        made.append(
            {
                "id": name,
                "inputs": {"name": name},
                "expected": {"licence": licence},
                "slice": half(name),
            }
        )
    return made


def main() -> int:
    """Write the cases, or compare them with the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only say whether the file is current")
    arguments = parser.parse_args()
    text = "".join(json.dumps(case) + "\n" for case in cases())
    if arguments.check:
        current = CASES.is_file() and CASES.read_text("utf-8") == text
        print("current" if current else f"{CASES.name} is not current: run tools/build_cases.py")
        return 0 if current else 1
    CASES.parent.mkdir(parents=True, exist_ok=True)
    CASES.write_text(text, "utf-8")
    print(f"{text.count(chr(10))} cases")
    return 0


if __name__ == "__main__":
    sys.exit(main())
