from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace

import pytest

from toolkit.document import Examination, Notebook
from toolkit.promotion.check import RULES, CheckCatalog, Severity, check_examination


def _markdown(text: str) -> dict:
    return {"cell_type": "markdown", "source": text}


GOOD = {
    "async": "import asyncio\nawait asyncio.sleep(0)\nasync with asyncio.timeout(1) as t:\n    t",
    "functions see later cells": "def f():\n    return helper()\ndef helper():\n    return f",
    "comprehensions": "rows = [x + y for x in range(3) for y in range(x) if (z := y)]\nprint(z)",
    "classes": "class A:\n    size = 1\n    both = size * 2\n    def m(self):\n        return A, self",
    "property": "class B:\n    @property\n    def v(self): ...\n    @v.setter\n    def v(self, x): ...",
    "branches": "if limit:\n    a = 1\nelse:\n    b = 2\nprint(a, b)",
    "loops": "for i in range(3):\n    if i:\n        print(before)\n    before = i",
    "try import": "try:\n    import foo\nexcept ImportError as e:\n    foo = None\nprint(foo)",
    "ask forgiveness": "try:\n    cached\nexcept NameError:\n    cached = {}\nprint(cached)",
    "with": "with open('a') as f, open('b') as g:\n    text = f.read() + g.read()\nprint(text)",
    "match": "match limit:\n    case {'a': x, **rest}:\n        print(x, rest)\n    case [y, *z]:\n        print(y, z)\n    case other:\n        print(other)",
    "lambda": "sort = lambda row, *a, key=limit, **k: (row, a, key, k)",
    "global": "def setup():\n    global state\n    state = 1\nsetup()\nprint(state)",
    "nested": "def outer(a):\n    b = a\n    def inner(c):\n        nonlocal b\n        b = c\n        return a, b\n    return inner",
    "star": "from math import *\nprint(pi)",
    "time": "%time total = sum(range(limit))\nprint(total)",
    "time cell": "%%time\ntotal = sum(range(limit))\nprint(total)",
    "capture": "%%capture out\nprint(1)",
    "magics": "%matplotlib inline\n%load_ext toolkit\n%config X.y = 1\n%env PATH",
    "model cell": "%%model small --out answer\nSay hi to {limit}.",
    "history": "print(_, _1, In, Out, get_ipython(), display(1))",
    "tools": "@toolkit.tool\ndef read_row(x: int) -> int:\n    return x\n@toolkit.tool(effect='write')\ndef write_row(x: int) -> int:\n    return x",
    "agent": "@toolkit.agent\ndef judge(x: int) -> str:\n    return toolkit.model('hi', route='small').text",
    "help": "limit?",
    "journaled": "import random\nnow, draw, new = toolkit.now(), toolkit.random(), toolkit.uuid()\nmine = random.Random(7)\nprint(draw.choice([1]), mine, new, now)",
    "tokens": "max_tokens = 512\npad_token = '<pad>'\ntokenizer_name = 'cl100k_base_2024'\ntoken_count = 3",
    "environment": "import os\nkey = os.environ['OPENAI_API_KEY']\npassword = os.getenv('DB_PASSWORD')",
    "placeholders": "api_key = '<your key here>'\npassword = '********'\ntoken = 'YOUR_TOKEN_123456'",
    "parse urls": "from urllib.parse import urlsplit\nprint(urlsplit('https://user@host/a?b=c'))",
    "type hints": "from __future__ import annotations\nx: Undefined = 1\ndef f(a: Later) -> Later: ...",
    "delete": "tmp = 1\ndel tmp",
    "walrus": "while (line := limit):\n    break\nprint(line)",
    "seeded": "import random, numpy as np\nrandom.seed(7)\nnp.random.seed(7)\nx = random.choice([1]), np.random.rand(), np.random.default_rng(7)",
    "durations": "import time\nstarted = time.perf_counter()\ntime.sleep(0)\nprint(time.monotonic() - started)",
    "sets": "seen = set()\nfor n in sorted({'a', 'b'}):\n    seen.add(n)\nx = len([w for w in {'c'}]), sum(n for n in {1, 2}), [n for n in {1, 2}], hash(7)\nif 'a' in {'a', 'b'}: print(seen, x)",
    "known hosts": "x = 'https://crm.known.io/v1', 'http://www.w3.org/2000/svg', 'https://api.example.com/x', 'https://a.test'\nhost = 'h'\ny = f'https://{host}/a', f'https://api.{host}'",
    "documented hosts": 'def f():\n    """See https://docs.acme.io."""\n# https://docs.acme.io',
    "data": "rows = toolkit.data('orders').query('SELECT 1')",
    "other evaluations": 'def f():\n    """See registry/evaluations/x."""\nplace = \'reports/evaluations/x\', \'my-registry/evaluations\'',
    "matrices": "import numpy as np\na = b = np.eye(2)\nx = a@b.values",
    "augmented": "count = 0\ncount += 1",
    "type variables": "def first[T](items): return items" if False else "x = 1",
}


@pytest.mark.parametrize("name", sorted(GOOD))
def test_good_notebooks_get_no_finding(name: str, check) -> None:
    """Ordinary code is silent."""
    assert check(GOOD[name]).findings == ()


def test_clean_report(check) -> None:
    """A clean notebook is ok and carries the digest of its normal form."""
    report = check("x = 1")
    assert report.ok
    assert report.digest
    assert report.to_json()["findings"] == []


CASES = [
    # structure
    (["if x\n  y"], [("does-not-parse", 3, 1)]),
    ([{"source": "1/0", "metadata": {"tags": ["raises-exception"]}}], [("raises-exception-tag", 3, None)]),
    ([{"source": "limit = 5", "metadata": {"tags": ["injected-parameters"]}}],
     [("injected-parameters", 3, None), ("parameter-overwritten", 3, 1)]),
    ([{"source": "x", "outputs": [{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]}],
     [("error-output", 3, None), ("undefined-name", 3, 1)]),
    # order
    (["df = df.dropna()"], [("undefined-name", 3, 1)]),
    (["total += 1"], [("undefined-name", 3, 1)]),
    (["print(late)", "late = 1"], [("undefined-name", 3, 1)]),
    (["def f():\n    return nowhere\n"], [("undefined-name", 3, 2)]),
    (["x = [row for row in rows]"], [("undefined-name", 3, 1)]),
    (["class A:\n    size = unit * 2"], [("undefined-name", 3, 2)]),
    (["@decorate\ndef f(): ..."], [("undefined-name", 3, 1)]),
    (["def f(a=start): ..."], [("undefined-name", 3, 1)]),
    (["print(x for x in later)\nlater = [1]"], [("undefined-name", 3, 1)]),
    (["from uuid import uuid4\norder = uuid4()"], [("unrecorded-value", 3, 2)]),
    (["from datetime import datetime as d\nday = d.now()"], [("unrecorded-value", 3, 2)]),
    (["import random\nx = random.choice([1, 2])"], [("unrecorded-value", 3, 2)]),
    (["import random\nx = random.Random()"], [("unrecorded-value", 3, 2)]),
    (["exit()"], [("exit-call", 3, 1)]),
    (["import os\n\nos._exit(1)"], [("exit-call", 3, 3)]),
    (["from sys import exit as leave\nleave(2)"], [("exit-call", 3, 2)]),
    (["if limit:\n    raise SystemExit(0)"], [("exit-call", 3, 2)]),
    # shell
    (["import subprocess as s\ns.run(['ls'])"], [("shell-command", 3, 2)]),
    (["from os import system\nsystem('ls')"], [("shell-command", 3, 2)]),
    (["files = !ls"], [("shell-command", 3, 1)]),
    (["%%time\n!ls"], [("shell-command", 3, 2)]),
    (["%%time\n%%bash\nls"], [("shell-command", 3, 2)]),
    (["%sx ls"], [("shell-command", 3, 1)]),
    (["%%script perl\nprint 1"], [("shell-command", 3, 1)]),
    (["get_ipython().system('ls')"], [("shell-command", 3, 1)]),
    (["get_ipython().run_cell_magic('bash', '', 'ls')"], [("shell-command", 3, 1)]),
    (["%pip install x"], [("package-install", 3, 1)]),
    (["pip install x"], [("package-install", 3, 1)]),
    (["x = 1\n!python -m pip install y"], [("package-install", 3, 2)]),
    (["!apt-get install -y jq"], [("package-install", 3, 1)]),
    (["%run other.py"], [("external-code", 3, 1)]),
    # packages (more in test_check_packages.py)
    (["# /// script\n# dependencies = [7]\n# ///"], [("bad-dependencies", 3, 2)]),
    (["# /// script\n# ///", "# /// script\n# ///"], [("several-dependencies", 4, 1)]),
    (["# /// script\n# ///\nimport yaml"], [("undeclared-import", 3, 3)]),
    (["# /// script\n# dependencies = ['pandas']\n# ///\nimport numpy"], [("indirect-import", 3, 4)]),
    # clients
    (["import cohere, json"], [("provider-client", 3, 1)]),
    (["from google import genai"], [("provider-client", 3, 1)]),
    (["import google.generativeai as g"], [("provider-client", 3, 1)]),
    (["import importlib\nm = importlib.import_module('litellm')"], [("provider-client", 3, 2)]),
    (["__import__('mistralai')"], [("provider-client", 3, 1)]),
    (["import openai\nc = openai.OpenAI(base_url='https://x.example/v1')"], [("sdk-address", 3, 2)]),
    (["import openai\nk = limit\nc = openai.OpenAI(api_key=k)"], [("sdk-address", 3, 3)]),
    (["import anthropic\nc = anthropic.AnthropicBedrock()"], [("sdk-address", 3, 2)]),
    (["import openai\nopenai.base_url = 'https://x.example/v1'"], [("sdk-address", 3, 2)]),
    (["import openai, os\nos.environ['OPENAI_BASE_URL'] = 'https://x.example'"], [("sdk-address", 3, 2)]),
    (["import openai, os\nos.environ.setdefault('OPENAI_API_KEY', 'x')"], [("sdk-address", 3, 2)]),
    (["import openai\nd = openai.OpenAI().with_options(base_url='https://x.example')"], [("sdk-address", 3, 2)]),
    (["from langchain_openai import ChatOpenAI"], [("agent-framework", 3, 1)]),
    (["from urllib.request import urlopen"], [("http-client", 3, 1)]),
    (["from urllib import request"], [("http-client", 3, 1)]),
    (["def f():\n    import httpx"], [("http-client", 3, 2)]),
    # addresses
    (["import pandas as pd\ndf = pd.read_csv('https://data.acme.io/a.csv')"], [("direct-read", 3, 2)]),
    (["import pandas\ndf = pandas.read_parquet(f's3://bucket/{limit}.parquet')"], [("direct-read", 3, 2)]),
    (["place = 'https://crm.acme.io/v1'"], [("unknown-host", 3, 1)]),
    (["x = f'see https://crm.acme.io/{limit}'"], [("unknown-host", 3, 1)]),
    (["place = 'postgresql://reader@db.acme.io:5432/shop'"], [("unknown-host", 3, 1)]),
    (["place = 'http://localhost:8080'"], [("unknown-host", 3, 1)]),
    # the files of evaluation sets
    (["text = open('registry/evaluations/capitals/cases.jsonl').read()"], [("evaluation-labels", 3, 1)]),
    (["from pathlib import Path\nroot = Path('..')\nrows = root / 'registry' / 'evaluations' / 'x'"],
     [("evaluation-labels", 3, 3)]),
    (["import os\nname = 'x'\nplace = os.path.join('registry', 'evaluations', name)"],
     [("evaluation-labels", 3, 3)]),
    (["name = 'x'\nplace = f'/srv/shop/registry/evaluations/{name}/set.yaml'"], [("evaluation-labels", 3, 2)]),
    (["from pathlib import Path\nplace = Path('registry').joinpath('evaluations', 'x')"],
     [("evaluation-labels", 3, 2)]),
    # values that differ
    (["import time\nx = time.time()"], [("unrecorded-value", 3, 2)]),
    (["import os\nx = os.urandom(8)"], [("unrecorded-value", 3, 2)]),
    (["import numpy as np\nx = np.random.rand(3)"], [("unrecorded-value", 3, 2)]),
    (["import numpy as np\nx = np.random.default_rng()"], [("unrecorded-value", 3, 2)]),
    (["for word in {'a', 'b'}:\n    print(word)"], [("hash-order", 3, 1)]),
    (["x = list(set(['a', 'b']))"], [("hash-order", 3, 1)]),
    (["x = ', '.join({str(n) for n in range(3)})"], [("hash-order", 3, 1)]),
    (["x = [w for w in frozenset('ab')]"], [("hash-order", 3, 1)]),
    (["x = hash('a')"], [("hash-order", 3, 1)]),
    # catalog and results
    (["rows = toolkit.data('invoices').query('SELECT 1')"], [("unknown-source", 3, 1)]),
    (["@toolkit.tool\ndef read_rows(x: int) -> int: ..."], [("unknown-tool", 3, 2)]),
    (["@toolkit.tool\ndef write_row(x: int) -> int: ..."], [("tool-effect", 3, 2)]),
    (["%%tool --effect write\ndef drop(x: int) -> int: ..."], [("unknown-tool", 3, 2)]),
    (["@toolkit.tool\ndef slow_row(x: int) -> int: ..."], [("tool-timeout", 3, 2)]),
    (["%%tool\ndef slow_row(x: int) -> int: ..."], [("tool-timeout", 3, 2)]),
    (["@toolkit.tool\nasync def slow_row(x: int) -> int: ..."], []),
    (["%%tool\nasync def slow_row(x: int) -> int: ..."], []),
    (["%%model big\nhi"], [("unknown-route", 3, 1)]),
    (["toolkit.result(**{'a': 1})"], [("open-results", 3, 1)]),
    # parameters
    (["limit = 5"], [("parameter-overwritten", 3, 1)]),
    ([{"source": "a: int = 1", "metadata": {"tags": ["parameters"]}}], [("several-parameter-cells", 3, None)]),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "expected"), CASES, ids=[str(c[0][0])[:40] for c in CASES])
def test_every_rule_fires_at_its_place(cells, expected, places) -> None:
    """One small fault gives exactly its finding, with cell and line."""
    assert places(*cells) == expected


FRAMELESS = [
    (["x = 1"], {"no-parameters", "no-results"}),
    ([], {"empty-notebook", "no-parameters", "no-results"}),
    ([_markdown("# only text")], {"empty-notebook", "no-parameters", "no-results"}),
    (
        ["print(limit)", {"source": "limit: int = 1", "metadata": {"tags": ["parameters"]}}],
        {"parameter-used-before", "no-results"},
    ),
    (
        [{"source": "limit = 1\nprint(limit)", "metadata": {"tags": ["parameters"]}}],
        {"untyped-parameter", "code-in-parameters", "no-results"},
    ),
    (["from mine import P\nimport toolkit\ntoolkit.parameters(P)"], {"unknown-parameter-class", "no-results"}),
]  # fmt: skip


@pytest.mark.parametrize(("cells", "rules"), FRAMELESS)
def test_what_a_job_needs(cells, rules, check) -> None:
    """Parameters, results and code are asked for, and declared in a usable way."""
    assert {f.rule for f in check(*cells, frame=False).findings} == rules


def test_requirements_can_be_waived(check, catalog) -> None:
    """The workspace decides whether results and parameters are required."""
    free = replace(catalog, require_results=False, require_parameters=False)
    assert check("x = 1", frame=False, catalog=free).findings == ()


def test_unknown_catalog_is_not_checked(check) -> None:
    """Without a catalog tools and routes cannot be unknown."""
    cells = ["@toolkit.tool\ndef f(x: int) -> int: ...", "toolkit.model('hi', route='r')"]
    assert check(*cells, catalog=CheckCatalog()).findings == ()


def test_sdks_that_use_the_environment_pass(check) -> None:
    """OpenAI and Anthropic as they are, and settings that change no address."""
    assert (
        check(
            "import os\nfrom anthropic import Anthropic\nfrom openai import AsyncOpenAI, OpenAI\n"
            "OpenAI(max_retries=0, base_url=None)\nAsyncOpenAI(timeout=5)\nAnthropic()\n"
            "os.environ.get('OPENAI_BASE_URL')\nos.environ['MINE'] = 'x'"
        ).findings
        == ()
    )
    assert check("def f(base_url): ...\nf(base_url='https://x.example')").findings == ()


def test_allowed_imports_and_known_names(check, catalog) -> None:
    """A workspace may allow modules, and may define names before the first cell."""
    mine = replace(
        catalog, allowed_imports=frozenset({"requests"}), known_names=frozenset({"spark"})
    )
    assert check("import requests.adapters\nspark.sql", catalog=mine).findings == ()


def test_limits(check, catalog) -> None:
    """Cells and bytes have limits that the workspace sets."""
    assert [f.rule for f in check("x = 1", catalog=replace(catalog, max_cells=2)).findings] == [
        "too-many-cells"
    ]
    small = check("x = 1", catalog=replace(catalog, max_bytes=10))
    assert [f.rule for f in small.findings] == ["too-large"]


def test_a_job_needs_a_budget(check, catalog) -> None:
    """Only where policy is known, and limits nothing."""
    assert [f.rule for f in check("x = 1", catalog=replace(catalog, budgeted=False)).findings] == [
        "no-budget"
    ]
    assert check("x = 1", catalog=replace(catalog, budgeted=True)).findings == ()


def test_outputs_and_their_size(check, catalog) -> None:
    """Outputs are a warning where they are not wanted; large ones always, with cell and size."""
    text = {"output_type": "stream", "name": "stdout", "text": "x" * 2_000}
    cells = ({"source": "x = 1", "outputs": [text]}, {"source": "y = 1", "outputs": [text]})
    assert check(*cells).findings == ()
    found = check(*cells, catalog=replace(catalog, keep_outputs=False)).findings
    assert [(f.rule, f.cell, f.message) for f in found] == [
        ("outputs-present", None, "2 cells hold outputs")
    ]
    found = check(*cells, catalog=replace(catalog, max_output_bytes=1_999)).findings
    assert [(f.rule, f.cell) for f in found] == [("large-output", 3), ("large-output", 4)]


def test_the_line_is_shown_where_it_may_be(check) -> None:
    """Code that a rule is about is shown; what may hold a secret is not, and is cut out."""
    key = "gh" + "p_" + "aB3dE5gH7jK9mN1pQ2rS4tU6vW8xY0zA1b2C"
    report = check(
        "print(nowhere)",
        f"import openai\nc = openai.OpenAI(api_key='{key}')",
        "!mysql -phunter2secret",
        "print(missing, '" + "x" * 500 + "')",
    )
    shown = {(f.rule, f.cell): f.excerpt for f in report.findings}
    assert shown["undefined-name", 3] == "print(nowhere)"
    assert key not in (shown["sdk-address", 4] or key)
    assert (shown["sdk-address", 4] or "").startswith("c = openai.OpenAI(api_key='[")
    assert shown["secret-in-source", 4] is None
    assert shown["shell-command", 5] is None
    assert len(shown["undefined-name", 6] or "") == 120
    assert "excerpt" not in json.dumps(report.to_json())


@pytest.mark.parametrize(
    ("counts", "cell"),
    [
        ([1, 2, 3], None),
        ([2, 5, 9], None),
        ([None, None, None], None),
        ([1, 2, None], None),
        ([2, 1, 3], 2),
        ([1, 1, 2], 2),
        ([1, None, 2], 2),
    ],
)
def test_execution_order(counts, cell, check, catalog) -> None:
    """Counts that do not rise, or a gap, warn about hidden state; no counts are fine."""
    free = replace(catalog, require_results=False, require_parameters=False)
    cells = [{"source": f"x{n} = 1", "execution_count": c} for n, c in enumerate(counts)]
    found = [(f.rule, f.cell) for f in check(*cells, frame=False, catalog=free).findings]
    assert found == ([] if cell is None else [("execution-order", cell)])


def test_nothing_is_said_after_unknown_code(places) -> None:
    """After a star import, ``exec`` or a cell that does not parse, names may exist."""
    for opening in ("from os import *", "exec('x = 1')", "globals().update(x=1)"):
        assert places(opening, "print(x)") == []
    assert places("if", "print(x)") == [("does-not-parse", 3, 1)]


def test_each_name_is_reported_once(places) -> None:
    """A name that is used everywhere and defined nowhere is one finding, at its first use."""
    assert places("df.head()", "df.tail()\nprint(df)") == [("undefined-name", 3, 1)]


def test_many_hits_are_cut_and_counted(check) -> None:
    """A notebook with hundreds of commands does not drown the reader."""
    found = Counter(f.rule for f in check("\n".join(["!ls"] * 100)).findings)
    assert found["shell-command"] == 26


def test_command_arguments_are_not_shown(check) -> None:
    """A command may carry a password, so only the program is named."""
    report = check("!mysql -u root -phunter2secret")
    assert "mysql" in report.findings[0].message
    assert "hunter2" not in json.dumps(report.to_json())


def test_rules_are_complete_and_unique() -> None:
    """Each rule has one id, a reason, a fix and a place in the documentation."""
    ids = [rule.id for rule in RULES]
    assert len(ids) == len(set(ids))
    for rule in RULES:
        assert re.fullmatch(r"[a-z]+(-[a-z0-9]+)*", rule.id)
        assert rule.why
        assert rule.fix
        assert rule.doc == f"docs/checks.md#{rule.id}"


def test_every_rule_is_exercised() -> None:
    """Each rule fires in some test of this folder or belongs to the file flaws tested there."""
    shown = {rule for _, expected in CASES for rule, _, _ in expected}
    shown |= {rule for _, rules in FRAMELESS for rule in rules}
    elsewhere = {
        *("not-a-file", "too-large", "not-utf8", "not-json", "not-a-number", "too-deep"),
        *("twin-keys", "not-a-notebook", "old-format", "new-format", "invalid-structure"),
        *("no-kernelspec", "missing-cell-id", "duplicate-cell-id", "wrong-kernel"),
        *("too-many-cells", "execution-order", "secret-in-source", "secret-in-output"),
        *("secret-in-metadata", "bad-parameter-name", "bad-parameter-type"),
        *("bad-parameter-default", "duplicate-parameter", "large-output", "outputs-present"),
        *("no-budget", "expired-waiver", "unused-waiver", "secret-in-attachment"),
        *(f"personal-data-in-{part}" for part in ("source", "output", "metadata", "attachment")),
    }
    assert {rule.id for rule in RULES} == shown | elsewhere


def test_rule_that_fails_is_a_finding_not_silence(catalog) -> None:
    """If a rule cannot cope with a notebook, the notebook does not pass."""

    class Hostile(Notebook):
        @property
        def route_uses(self):  # type: ignore[override]
            raise RecursionError

    notebook = Hostile(path="n.ipynb", cells=(), language="python", kernel="python3")
    report = check_examination(Examination("n.ipynb", notebook), catalog)
    assert "check-failed" in {f.rule for f in report.errors}


def test_severities(check) -> None:
    """Warnings do not stop a promotion, errors do."""
    warned = check("from langchain_core import tools")
    assert warned.ok
    assert [f.severity for f in warned.findings] == [Severity.WARNING]
