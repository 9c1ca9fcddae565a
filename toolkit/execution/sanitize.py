"""Makes foreign HTML harmless and keeps what tables, headings and images need to be read.

nbconvert's own filter escapes headings, table heads and images, which Markdown and pandas
produce; this one replaces it.  bleach is nbconvert's dependency for the same purpose.
"""

from __future__ import annotations

import re
from typing import Any

from bleach import clean
from bleach.css_sanitizer import CSSSanitizer

__all__ = ["bounded", "harmless"]

_TAGS = frozenset(
    "a abbr b blockquote br caption code dd del details div dl dt em h1 h2 h3 h4 h5 h6 hr i img "  # noqa: SIM905
    "kbd li mark ol p pre q s samp small span strong sub summary sup table tbody td tfoot th "
    "thead tr u ul var".split()
)
_PLAIN_ATTRIBUTES = frozenset(
    {"class", "style", "title", "alt", "colspan", "rowspan", "width", "height", "start", "open"}
)
_LINK = re.compile(r"\s*(?:https?://|mailto:|#)", re.IGNORECASE)
_IMAGE = re.compile(r"data:image/(?:png|jpeg|gif|webp);base64,", re.IGNORECASE)
# Elements whose text is no text for people; bleach removes the tags only.
_CODE = re.compile(r"<(style|script|title|template|noscript)\b", re.IGNORECASE)
_STYLES = CSSSanitizer()


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "href":
        return tag == "a" and _LINK.match(value) is not None
    if name == "src":
        return tag == "img" and _IMAGE.match(value) is not None
    return name in _PLAIN_ATTRIBUTES


def harmless(markup: Any) -> str:
    """Return HTML without script, style sheet, frame, form, handler or address to load from.

    Links to ``http``, ``https`` and ``mailto`` stay, and images that are in the text itself.
    """
    text = markup.decode("utf-8", "replace") if isinstance(markup, bytes) else str(markup)
    return str(
        clean(
            _without_code(text),
            tags=_TAGS,
            attributes=_allowed,
            protocols={"http", "https", "mailto", "data"},
            css_sanitizer=_STYLES,
            strip=True,
        )
    )


def _without_code(text: str) -> str:
    """Cut style and script elements with their text; linear, whatever is left open."""
    kept, at = [], 0
    while found := _CODE.search(text, at):
        kept.append(text[at : found.start()])
        end = re.compile(rf"</{found[1]}\s*>", re.IGNORECASE).search(text, found.end())
        if end is None:
            return "".join(kept)
        at = end.end()
    return "".join([*kept, text[at:]])


def bounded(output: Any, limit: int) -> Any:
    """Return an output with no text longer than ``limit`` characters; the notebook has it all.

    A stream keeps its head and tail; another form of a display is shown instead of one that
    is too long.
    """
    if output.output_type == "stream":
        return {**output, "text": _middle_out(output.text, limit)}
    if output.output_type == "error":
        return output
    data = {
        kind: value
        for kind, value in output.data.items()
        if not (isinstance(value, str) and kind.startswith("text/") and len(value) > limit)
    }
    if not data and output.data:
        shown = str(output.data.get("text/plain", "[this output is too long for a page]"))
        data = {"text/plain": _middle_out(shown, limit)}
    return {**output, "data": data}


def _middle_out(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    left = len(text) - 2 * half
    return f"{text[:half]}\n[… {left} characters: see the notebook …]\n{text[-half:]}"
