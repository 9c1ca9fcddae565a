"""What an agent takes is read from its ``def`` as Python would bind it."""

from __future__ import annotations

import ast
import inspect

from hypothesis import given
from hypothesis import strategies as st

from toolkit.document import Notebook
from toolkit.document.signature import Signature, signature_of

NAMES = "abcdefg"


@st.composite
def headers(draw: st.DrawFn) -> str:
    """The arguments of a ``def`` of any shape."""
    names = list(draw(st.permutations(NAMES)))
    kinds = {
        kind: [names.pop() for _ in range(draw(st.integers(0, 2)))]
        for kind in ("place", "any", "name")
    }
    placed = [*kinds["place"], *kinds["any"]]
    plain = draw(st.integers(0, len(placed)))
    said = [name if n < plain else f"{name}=1" for n, name in enumerate(placed)]
    if kinds["place"]:
        said.insert(len(kinds["place"]), "/")
    named = [f"{name}=1" if draw(st.booleans()) else name for name in kinds["name"]]
    said += ["*rest"] if draw(st.booleans()) else ["*"] if named else []
    said += named
    said += ["**more"] if draw(st.booleans()) else []
    return ", ".join(said)


@given(headers(), st.sets(st.sampled_from([*NAMES, "z"])))
def test_arguments_fit_exactly_where_python_binds_them(header: str, given_names: set[str]) -> None:
    """Whatever the order, the defaults, ``/``, ``*`` and ``**``."""
    source = f"def f({header}): ..."
    node = ast.parse(source).body[0]
    assert isinstance(node, ast.FunctionDef)
    found = signature_of(node)
    space: dict[str, object] = {}
    exec(source, space)  # noqa: S102 - made above
    try:
        inspect.signature(space["f"]).bind(**dict.fromkeys(given_names, 1))  # type: ignore[arg-type]
        binds = True
    except TypeError:
        binds = False
    assert binds == (not found.missing(given_names) and not found.unknown(given_names))


def test_the_signature_stands_with_the_definition(notebook) -> None:
    """Of the decorator and of the magic; under another decorator it is not known."""
    cells = [
        "import toolkit\n@toolkit.agent\ndef one(a: int, b: int = 2) -> int:\n    return a",
        "%%agent\ndef two(*, c: str) -> str:\n    return c",
        "@other\n@toolkit.agent\ndef three(d: int) -> int:\n    return d",
    ]
    found: Notebook = notebook(*cells)
    assert {d.name: d.signature for d in found.definitions} == {
        "one": Signature(("a",), ("b",)),
        "two": Signature(("c",)),
        "three": None,
    }
