"""The executed notebook as one page that anybody may open: sanitised, no script, no network."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toolkit.execution.sanitize import bounded, harmless
from toolkit.values import Cause, RunState

__all__ = ["ReportFacts", "notes_of", "render_html", "warm_page"]

# A longer text is shortened on the page: a browser must open it, and cleaning takes its time.
_MAX_TEXT = 200_000
_log = logging.getLogger("toolkit.execution")
_TONES = {
    RunState.SUCCEEDED: "good",
    RunState.WAITING: "calm",
    RunState.SKIPPED: "calm",
    RunState.QUEUED: "calm",
    RunState.RUNNING: "calm",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFacts:
    """What the head of the page says; everything else is the notebook.

    Attributes:
        run_id: The run.
        state, cause, message: How it ended.
        job, version: Of a registered version.
        parameters: JSON values by name.
        totals: What is worth a number at the top (calls, tokens, cost), ready to be read.
        links: Addresses by title; only ``http``, ``https`` and relative ones are shown.
        notes: See :class:`toolkit.execution.Ending`.
    """

    run_id: str
    state: RunState
    cause: Cause | None = None
    message: str | None = None
    job: str | None = None
    version: int | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    totals: Mapping[str, Any] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def notes_of(notebook: Path) -> tuple[str, ...]:
    """Return the notes that the runner left in an executed notebook; none where it left none."""
    try:
        noted = json.loads(notebook.read_text("utf-8"))["metadata"]["toolkit"]["notes"]
    except (OSError, ValueError, LookupError, TypeError):
        return ()
    return tuple(str(each) for each in noted) if isinstance(noted, list) else ()


def render_html(notebook: Path, out: Path, facts: ReportFacts) -> Path | None:
    """Write the executed notebook as a page, and return the page.

    A report is an extra: what goes wrong with it is logged as a warning and ``None`` is
    returned, because the run's state is not to depend on it.
    """
    try:
        import nbformat

        page = _page(nbformat.reads(notebook.read_text("utf-8"), as_version=4), facts)
        draft = out.with_name(f".{out.name}.tmp")
        draft.write_text(page, "utf-8", errors="replace")
        draft.replace(out)
    except Exception as error:
        _log.warning("%s could not be rendered: %s: %s", notebook, type(error).__name__, error)
        return None
    return out


def warm_page() -> None:
    """Load all that a page needs, by drawing a small one: most of a second the first time."""
    try:
        from nbformat import v4

        printed = v4.new_code_cell("1", execution_count=1)
        printed.outputs = [v4.new_output("stream", text="1")]
        cells = [v4.new_markdown_cell("*one*"), printed]
        _page(v4.new_notebook(cells=cells), ReportFacts(run_id="run", state=RunState.SUCCEEDED))
    except Exception as error:  # noqa: BLE001 - the page of a run meets it again, and tells
        _log.debug("no page can be drawn yet: %r", error)


def _page(node: Any, facts: ReportFacts) -> str:
    import nbformat
    from jinja2 import Environment, FileSystemLoader
    from nbconvert import HTMLExporter
    from pygments.formatters import HtmlFormatter

    for cell in node.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                nbformat.from_dict(bounded(output, _MAX_TEXT)) for output in cell.outputs
            ]
    # nbconvert logs advice about accessibility, which is not for whoever reads the run's log.
    quiet = logging.getLogger("toolkit.execution.nbconvert")
    quiet.setLevel(logging.CRITICAL)
    exporter = HTMLExporter(template_name="basic", sanitize_html=True, log=quiet)
    exporter.register_filter("clean_html", harmless)
    body, _ = exporter.from_notebook_node(node)
    templates = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    colours: Any = HtmlFormatter(style="default")
    return templates.get_template("report.html.j2").render(
        facts=facts,
        tone=_TONES.get(facts.state, "bad"),
        title=_title(facts),
        parameters={name: _shown(value) for name, value in facts.parameters.items()},
        links={title: address for title, address in facts.links.items() if _safe(address)},
        colours=colours.get_style_defs(".highlight"),
        notebook=body,
    )


def _title(facts: ReportFacts) -> str:
    if facts.job is None:
        return facts.run_id
    return facts.job if facts.version is None else f"{facts.job}@{facts.version}"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 200 else text[:199] + "…"


def _safe(address: str) -> bool:
    return urlsplit(address.strip()).scheme in {"", "http", "https"}
