"""Notebooks as they lie around: realistic ones, and what people and tools do to them.

:func:`notebooks` makes any number of files from a seed; the same seed gives the same bytes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

__all__ = ["KINDS", "notebooks"]

_SPEC = {"name": "python3", "display_name": "Python 3", "language": "python"}
_WORDS = (
    *("order", "price", "region", "customer", "month", "total", "rate", "score", "model", "share"),
    *("stock", "return", "delay", "route", "supplier", "claim", "policy", "margin", "invoice"),
)
_LINES = (
    "{a} = pd.read_csv('data/{b}.csv')",
    "{a} = {a}.dropna().groupby('{b}')['{c}'].agg(['mean', 'sum']).reset_index()",
    "def {b}_{c}(rows, limit={n}):\n    return [row for row in rows if row['{c}'] > limit]",
    "class {C}:\n    def __init__(self, {b}: int = {n}) -> None:\n        self.{b} = {b}",
    "for {b} in range({n}):\n    print(f'{b} {{{b}:>5}}')",
    "plt.plot([x ** 2 for x in range({n})], label='{a}')",
    "with open('out/{a}.json', 'w') as stream:\n    json.dump({{'{b}': {n}}}, stream)",
    "reply = toolkit.model(f'Summarise {{{n}}} {b}s', route='default')",
    "assert {n} > 0, 'no {b}'",
    "{c} = sorted({{'{a}', '{b}'}}, key=len)",
)
_WILD = (
    *("%matplotlib inline", "!pip install -q {a}", "!ls -la data/ | head", "%cd ../{a}", "{a}?"),
    *(
        "files = !ls *.csv",
        "%load_ext autoreload\n%autoreload 2",
        "%run {a}.ipynb",
        "%timeit {a}()",
    ),
    *("%%bash\nset -e\ncat {a}.txt | sort", "%%writefile {a}.py\nprint({n})", "%%html\n<b>{a}</b>"),
    *("%%R -i {a}\nsummary({a})", "%%sql\nSELECT * FROM {a} LIMIT {n}", "%env {A}_HOME=/opt/{a}"),
    *(
        "from {a} import *",
        "print {n}",
        "if {a}\n    pass",
        "    {a} = {n}",
        "import os; os.system('{a}')",
    ),
    *(
        "import requests\nrequests.get('https://{a}.acme.io/v{n}')",
        "exec('{a} = {n}')",
        "await {a}()",
    ),
    *("get_ipython().system('{a}')", "quit()", "del {a}", "{a} = {b}\n", "\x0c\n\t{a}", "“{a}”"),
    *("password = 'hunter{n}22x'", "contact = '{a}.{b}@acme.io'", "#%%\n# %%", "λ = {n}; 变量 = λ"),
    "x = " + "(" * 60 + "1" + ")" * 60,
)


def _fill(random: Random, line: str) -> str:
    a, b, c = random.sample(_WORDS, 3)
    number = str(random.randrange(1, 90))
    return (
        line.replace("{a}", a).replace("{b}", b).replace("{c}", c).replace("{n}", number)
        .replace("{A}", a.upper()).replace("{C}", c.title()).replace("{{", "{").replace("}}", "}")
    )  # fmt: skip


def _cell(random: Random, source: str, kind: str = "code") -> dict[str, Any]:
    made: dict[str, Any] = {
        "cell_type": kind,
        "id": f"{random.getrandbits(48):012x}",
        "metadata": {},
        "source": source.splitlines(keepends=True),
    }
    if kind == "code":
        made |= {"outputs": [], "execution_count": None}
    return made


def _outputs(random: Random) -> list[dict[str, Any]]:
    table = "".join(f"<td>{random.random():.6f}</td>" for _ in range(200))
    picture = base64.b64encode(random.randbytes(20_000)).decode()
    return [
        {"output_type": "stream", "name": "stdout", "text": [f"row {n}\n" for n in range(40)]},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}},
        {
            "output_type": "execute_result",
            "execution_count": 7,
            "metadata": {},
            "data": {"text/html": f"<table>{table}</table>", "text/plain": ["a table"]},
        },
    ]


def _notebook(random: Random, lines: tuple[str, ...] = _LINES) -> dict[str, Any]:
    first = "import json\nimport pandas as pd\nimport matplotlib.pyplot as plt\nimport toolkit"
    tagged = _cell(random, "limit: int = 20  # rows\nregion: str = 'north'")
    tagged["metadata"]["tags"] = ["parameters"]
    cells = [_cell(random, "# A report\n\nWhat it says.", "markdown"), _cell(random, first), tagged]
    for number in range(random.randrange(15, 45)):
        chosen = [_fill(random, random.choice(lines)) for _ in range(random.randrange(1, 6))]
        cell = _cell(random, "\n".join(chosen))
        if random.random() < 0.4:
            cell["outputs"], cell["execution_count"] = _outputs(random), number + 1
        cells.append(cell)
        if random.random() < 0.3:
            cells.append(_cell(random, f"## Part {number}\n\n" + "Some words. " * 20, "markdown"))
    cells.append(_cell(random, "toolkit.result(rows=limit)"))
    return {"cells": cells, "metadata": {"kernelspec": _SPEC}, "nbformat": 4, "nbformat_minor": 5}


def _typical(random: Random) -> bytes:
    return _bytes(_notebook(random))


def _wild(random: Random) -> bytes:
    return _bytes(_notebook(random, _LINES + _WILD * 2))


def _foreign(random: Random) -> bytes:
    made = _notebook(random, ("{a} <- read.csv('{b}.csv')", "ggplot({a}) + geom_line()"))
    made["metadata"] = {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}}
    return _bytes(made)


def _old(random: Random) -> bytes:
    """Format 3: worksheets, ``input`` for ``source``, no ids."""
    cells: list[dict[str, Any]] = []
    for cell in _notebook(random)["cells"]:
        made = {"cell_type": cell["cell_type"], "metadata": {}}
        if cell["cell_type"] == "code":
            made |= {
                "input": cell["source"],
                "language": "python",
                "outputs": [],
                "collapsed": False,
            }
        else:
            made["source"] = cell["source"]
        cells.append(made)
    sheets = [{"cells": cells, "metadata": {}}]
    return _bytes(
        {"metadata": {"name": ""}, "nbformat": 3, "nbformat_minor": 0, "worksheets": sheets}
    )


def _without_ids(random: Random) -> bytes:
    made = _notebook(random)
    for cell in made["cells"]:
        del cell["id"]
    return _bytes({**made, "nbformat_minor": 4})


def _large(random: Random) -> bytes:
    """Four megabytes of text, rows and pictures in the outputs of one cell."""
    made = _notebook(random)
    lines = [f"{n} {random.random():.9f} {random.choice(_WORDS)}\n" for n in range(60_000)]
    picture = base64.b64encode(random.randbytes(1_500_000)).decode()
    cell = _cell(random, "print('much')")
    cell["outputs"] = [
        {"output_type": "stream", "name": "stdout", "text": lines},
        {"output_type": "display_data", "metadata": {}, "data": {"image/png": picture}},
    ]
    made["cells"].append(cell)
    return _bytes(made)


def _run_before(random: Random) -> bytes:
    """The output of papermill: a cell with values, times in all metadata."""
    made = _notebook(random)
    cell = _cell(random, "limit = 3")
    cell["metadata"]["tags"] = ["injected-parameters"]
    made["cells"].insert(3, cell)
    for each in made["cells"]:
        each["metadata"]["papermill"] = {"duration": random.random(), "status": "completed"}
    made["metadata"]["papermill"] = {"parameters": {"limit": 3, "db_password": "hunter2x9"}}
    return _bytes(made)


def _dressed(random: Random) -> bytes:
    """Metadata of other tools, attachments, widgets, no kernel, an unknown minor version."""
    made = _notebook(random)
    made["metadata"] = {
        "colab": {"name": "x", "provenance": [{"file_id": "1", "timestamp": 7}]},
        "toc": {"base_numbering": 1},
        "widgets": {"application/vnd.jupyter.widget-state+json": {"state": {}}},
        "note": "a text where others have objects",
    }
    made["cells"][0]["attachments"] = {"a.txt": {"text/plain": base64.b64encode(b"hi").decode()}}
    return _bytes({**made, "nbformat_minor": 7})


def _damaged(random: Random) -> bytes:
    data = bytearray(_typical(random))
    if random.random() < 0.5:
        return bytes(data[: random.randrange(1, len(data))])
    for _ in range(20):
        data[random.randrange(len(data))] = random.randrange(256)
    return bytes(data)


def _bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, indent=1).encode("utf-8")


KINDS: dict[str, Callable[[Random], bytes]] = {
    "typical": _typical,
    "wild": _wild,
    "R": _foreign,
    "format 3": _old,
    "no ids": _without_ids,
    "4 MB outputs": _large,
    "papermill output": _run_before,
    "other tools' metadata": _dressed,
    "damaged": _damaged,
}
_SHARES = (40, 22, 5, 5, 6, 2, 6, 8, 6)


def notebooks(count: int, seed: int = 7) -> Iterator[tuple[str, bytes]]:
    """Yield (kind, bytes) of ``count`` notebooks; each kind appears, most are typical or wild."""
    random = Random(seed)
    names = list(KINDS)
    drawn = [*names, *random.choices(names, _SHARES, k=max(0, count - len(names)))]
    for name in drawn[:count]:
        yield name, KINDS[name](random)
