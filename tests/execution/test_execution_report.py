"""The page of a run: sanitised, self-contained, and never a reason for a run to fail."""

from __future__ import annotations

import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from toolkit.execution import ReportFacts, render_html
from toolkit.values import Cause, RunState

HOSTILE = [
    "<img src='https://example.com/x.png'><img src='data:image/svg+xml;base64,AAAA'>",
    "<a href='data:text/html,x'>x</a><a href=' java\nscript:alert(1)'>x</a><a href='//e.com'>x</a>",
    "<p style='position:fixed;background:url(https://example.com)'>x</p><meta http-equiv=refresh>",
    "<math><mtext><style><img src=x onerror=alert(1)></style></mtext></math><style>never closed",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<a href='javascript:alert(1)'>x</a>",
    "<iframe src='https://example.com'></iframe>",
    "<form action='https://example.com'><input name=p></form>",
    "<svg onload=alert(1)></svg>",
    "<style>@import 'https://example.com'</style>",
]


class _Page(HTMLParser):
    """Collects the elements of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs


def _write(path: Path, cells: list[nbformat.NotebookNode]) -> Path:
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    return path


def _hostile(path: Path) -> Path:
    node = nbformat.v4
    cells = [node.new_markdown_cell(text) for text in HOSTILE]
    for text in HOSTILE:
        data = {"text/html": text, "image/svg+xml": text, "text/markdown": text}
        outputs = [node.new_output("display_data", {kind: value}) for kind, value in data.items()]
        outputs += [
            node.new_output("stream", text=text),
            node.new_output("error", ename="E", evalue=text, traceback=[text]),
            node.new_output("display_data", {"application/javascript": "alert(1)"}),
        ]
        cells.append(node.new_code_cell(text, outputs=outputs))
    return _write(path, cells)


def test_nothing_in_a_notebook_or_in_the_facts_becomes_active(tmp_path):
    """No script, handler, frame, form or foreign address survives, wherever it was put."""
    evil = "\"'><script>alert(1)</script>"
    facts = ReportFacts(
        run_id=evil,
        state=RunState.FAILED,
        cause=Cause.CELL_ERROR,
        message=evil,
        job=evil,
        parameters={evil: evil},
        totals={evil: evil},
        links={"bad": "javascript:alert(1)", "data": "data:text/html,x", "good": "https://a.b/c"},
        notes=(evil,),
    )
    out = render_html(_hostile(tmp_path / "n.ipynb"), tmp_path / "n.html", facts)
    assert out == tmp_path / "n.html"
    text = out.read_text()
    page = _Page(text)
    forbidden = {"script", "iframe", "form", "input", "object", "embed", "link", "base", "svg"}
    assert not forbidden & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert [value for name, value in page.attributes if name == "href" and "//" in value] == [
        "https://a.b/c"
    ]
    assert not [v for _, v in page.attributes if v and re.match(r"\s*(javascript|data:text)", v)]
    sources = [value for name, value in page.attributes if name == "src" and value]
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not [v for name, v in page.attributes if name == "style" and v and "url" in v]
    policy = [value for name, value in page.attributes if value and "default-src" in value]
    assert policy[0].startswith("default-src 'none';")
    assert "script-src" not in policy[0]


def test_the_head_says_how_the_run_ended_and_with_what(tmp_path, run):
    """State, cause, job, parameters, totals and links of a real run are on its page."""
    ran = run(
        ("rate = 1", ["parameters"]),
        "from IPython.display import HTML\nprint('\\x1b[31mred\\x1b[0m')\nHTML('<b>bold</b>')",
        "1/0",
        parameters={"rate": 2},
    )
    facts = ReportFacts(
        run_id="run-1",
        state=ran.ending.state,
        cause=ran.ending.cause,
        message=ran.ending.message,
        job="licence-review",
        version=3,
        parameters={"rate": 2},
        totals={"model_calls": 12, "cost": "0.0123 USD"},
        links={"MLflow": "http://127.0.0.1:5000/x"},
    )
    out = render_html(ran.ending.output, tmp_path / "report.html", facts)
    assert out is not None
    text = out.read_text()
    for piece in (
        "<title>licence-review@3 · failed</title>",
        "failed · cell error",
        "cell 3, line 1: ZeroDivisionError: division by zero",
        "<code>rate</code>",
        "model calls",
        "0.0123 USD",
        'href="http://127.0.0.1:5000/x"',
        "<b>bold</b>",
        '<span class="ansi-red-fg">red</span>',
        "celltag_injected-parameters",
    ):
        assert piece in text


def test_a_page_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    """A broken notebook, a missing one and a missing folder leave no page and raise nothing."""
    facts = ReportFacts(run_id="run-1", state=RunState.SUCCEEDED)
    broken = tmp_path / "broken.ipynb"
    broken.write_text("{")
    good = _write(tmp_path / "good.ipynb", [])
    with caplog.at_level(logging.WARNING, "toolkit.execution"):
        assert render_html(broken, tmp_path / "a.html", facts) is None
        assert render_html(tmp_path / "none.ipynb", tmp_path / "a.html", facts) is None
        assert render_html(good, tmp_path / "none" / "a.html", facts) is None
    assert len(caplog.records) == 3
    assert [path.name for path in tmp_path.glob("*.html")] == []


def test_tables_headings_and_images_of_ordinary_notebooks_survive(tmp_path):
    """What Markdown and pandas write is shown as they mean it, without their style sheets."""
    node = nbformat.v4
    image = "data:image/png;base64,iVBORw0KGgo="
    table = (
        "<style scoped>.dataframe th { x: y }</style><table border='1' class='dataframe'><thead>"
        "<tr><th colspan='2'>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    )
    cells = [
        node.new_markdown_cell(f"# Title\n\n- one\n\n| h |\n|---|\n| 1 |\n\n![alt]({image})"),
        node.new_code_cell("df", outputs=[node.new_output("display_data", {"text/html": table})]),
    ]
    facts = ReportFacts(run_id="run-1", state=RunState.SUCCEEDED)
    out = render_html(_write(tmp_path / "n.ipynb", cells), tmp_path / "n.html", facts)
    assert out is not None
    page = _Page(out.read_text())
    assert {"h1", "p", "ul", "li", "table", "thead", "th", "tbody", "td", "img"} <= set(page.tags)
    assert ("src", image) in page.attributes
    assert ("colspan", "2") in page.attributes
    assert "&lt;" not in out.read_text()
    assert "x: y" not in out.read_text()


def test_long_outputs_are_shortened_on_the_page(tmp_path):
    """Megabytes of text stay in the notebook; the page has head and tail, and opens."""
    node = nbformat.v4
    long = "<i>x</i>" * 1_000_000
    outputs = [
        node.new_output("stream", text="head" + long + "tail"),
        node.new_output("display_data", {"text/html": long, "text/plain": "short form"}),
        node.new_output("display_data", {"text/html": long}),
        node.new_output("display_data", {"text/plain": "head" + long + "tail"}),
    ]
    cells = [node.new_code_cell("1", outputs=outputs)]
    facts = ReportFacts(run_id="run-1", state=RunState.SUCCEEDED)
    out = render_html(_write(tmp_path / "n.ipynb", cells), tmp_path / "n.html", facts)
    assert out is not None
    text = out.read_text()
    assert len(text) < 2_000_000
    assert text.count("characters: see the notebook") == 2
    assert "short form" in text
    assert "too long for a page" in text


@pytest.mark.parametrize("state", list(RunState))
def test_every_state_has_a_page(tmp_path, state):
    """No state is missing in the page's colours."""
    notebook = _write(tmp_path / "n.ipynb", [])
    out = render_html(notebook, tmp_path / "n.html", ReportFacts(run_id="run-1", state=state))
    assert out is not None
    assert f"run-1 · {state}" in out.read_text()
