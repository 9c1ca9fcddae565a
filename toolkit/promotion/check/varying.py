"""Values that differ each time: what makes a resumed run and a replay ask for other things."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from toolkit.document import Cell
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_NOW = "use toolkit.now()"
_UUID = "use toolkit.uuid()"
_RANDOM = "draw from one toolkit.random(), which is a random.Random"
_NUMPY = "seed it: numpy.random.default_rng(toolkit.random().getrandbits(64))"
_DIFFERENT = {
    **dict.fromkeys(
        (
            *("datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
            *("datetime.date.today", "time.time", "time.time_ns", "time.ctime"),
            *("pandas.Timestamp.now", "pandas.Timestamp.utcnow", "pandas.Timestamp.today"),
        ),
        _NOW,
    ),
    **dict.fromkeys(("uuid.uuid1", "uuid.uuid4"), _UUID),
    **dict.fromkeys(
        (
            *("random.random", "random.randint", "random.randrange", "random.choice"),
            *("random.choices", "random.sample", "random.shuffle", "random.uniform"),
            *("random.gauss", "random.normalvariate", "random.betavariate", "random.getrandbits"),
            *("random.randbytes", "random.triangular", "random.expovariate", "random.Random"),
            *("random.SystemRandom", "os.urandom", "os.getrandom", "secrets.token_hex"),
            *("secrets.token_bytes", "secrets.token_urlsafe", "secrets.choice"),
            *("secrets.randbelow", "secrets.randbits"),
        ),
        _RANDOM,
    ),
    **dict.fromkeys(
        (
            *(f"numpy.random.{name}" for name in ("rand", "randn", "randint", "random", "choice")),
            *(f"numpy.random.{name}" for name in ("random_sample", "shuffle", "permutation")),
            *(f"numpy.random.{name}" for name in ("normal", "uniform", "poisson", "exponential")),
            *(f"numpy.random.{name}" for name in ("default_rng", "RandomState", "SeedSequence")),
        ),
        _NUMPY,
    ),
}
# With a seed these give the same each time.
_SEEDED = {
    *("random.Random", "numpy.random.default_rng", "numpy.random.RandomState"),
    "numpy.random.SeedSequence",
}
_SEEDS = {"random.seed": "random.", "numpy.random.seed": "numpy.random."}
_TRULY = {"random.SystemRandom"}

_INTO_ORDER = {"list", "tuple", "enumerate", "iter", "next", "zip"}
_ORDERLESS = {
    *("sorted", "set", "frozenset", "len", "sum", "min", "max", "any", "all", "dict"),
    "collections.Counter",
}


def _unrecorded(subject: Subject) -> Iterator[Hit]:
    """Values that differ each time; after ``random.seed(7)`` and with ``Random(7)`` they do not."""
    seeded = _seeded(subject)
    for cell in subject.code:
        for call in subject.names.calls(cell):
            name = subject.names.dotted(call.func)
            fix = _DIFFERENT.get(name)
            if fix is None or (name in _SEEDED and (call.args or call.keywords)):
                continue
            if name not in _TRULY | _SEEDED and name.startswith(seeded):
                continue
            yield Hit(f"{name}() gives another value each time", cell, call.lineno, fix)


def _seeded(subject: Subject) -> tuple[str, ...]:
    """Return the prefixes of modules whose own generator the notebook seeds."""
    return tuple(
        _SEEDS[name]
        for cell in subject.code
        for call in subject.names.calls(cell)
        if (name := subject.names.dotted(call.func)) in _SEEDS and (call.args or call.keywords)
    )


def _hash_order(subject: Subject) -> Iterator[Hit]:
    for cell in subject.code:
        seen: set[int] = set()
        for line, message in _unordered(subject, cell):
            if line not in seen:
                seen.add(line)
                yield Hit(message, cell, line)


def _unordered(subject: Subject, cell: Cell) -> Iterator[tuple[int, str]]:
    told = "the order of a set differs each time"
    free: set[int] = set()  # comprehensions whose order nobody sees
    for node in subject.names.nodes(cell):
        if isinstance(node, ast.For) and _is_set(subject, node.iter):
            yield node.lineno, told
        elif isinstance(node, ast.ListComp) and id(node) not in free:
            if any(_is_set(subject, one.iter) for one in node.generators):
                yield node.lineno, told
        elif isinstance(node, ast.Call):
            name = subject.names.dotted(node.func)
            if name in _ORDERLESS:
                free.update(id(each) for each in node.args)
            elif name == "hash" and not _is_number(node.args):
                yield node.lineno, "hash() of text differs each time"
            elif (
                (name in _INTO_ORDER or _joins(node))
                and id(node) not in free
                and any(_is_set(subject, each) for each in node.args)
            ):
                yield node.lineno, told


def _joins(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr == "join"


def _is_number(nodes: list[ast.expr]) -> bool:
    return all(isinstance(n, ast.Constant) and isinstance(n.value, int | float) for n in nodes)


def _is_set(subject: Subject, node: ast.expr) -> bool:
    if isinstance(node, ast.Set):
        return not _is_number(node.elts)
    if isinstance(node, ast.Call):
        return subject.names.dotted(node.func) in {"set", "frozenset"} and bool(node.args)
    return isinstance(node, ast.SetComp)


RULES = (
    Rule(
        "unrecorded-value",
        Severity.WARNING,
        "a run that starts again after a crash asks for other things than it has recorded",
        "take it from toolkit.now(), toolkit.random() or toolkit.uuid()",
        _unrecorded,
    ),
    Rule(
        "hash-order",
        Severity.WARNING,
        "Python salts the hash of text in each process, so a run that starts again may make the"
        " same calls in another order",
        "put sorted(…) around the set; for a stable number of a text use hashlib",
        _hash_order,
    ),
)
