"""The documentation as data: pages, fenced blocks, inline code, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# The lead's working papers; everything else is documentation for users.
_NOT_OURS = {"contract.md", "status.md"}
_FENCE = re.compile(r"^```(?P<info>[^\n`]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, the file that it stands for, its text and place."""

    language: str
    file: str
    text: str
    page: str
    line: int

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def blocks(self) -> list[Block]:
        found = []
        for match in _FENCE.finditer(self.text):
            language, _, file = match["info"].strip().partition(" ")
            line = self.text.count("\n", 0, match.start()) + 1
            found.append(Block(language, file.strip(), match["text"], self.name, line))
        return found

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    @property
    def inline_code(self) -> list[str]:
        return _INLINE.findall(self.prose)

    @property
    def links(self) -> Iterator[tuple[bool, str]]:
        """Whether it is an image, and the target."""
        for match in _LINK.finditer(_INLINE.sub("code", self.prose)):
            yield bool(match["image"]), match["target"]
        # Links whose text is inline code.
        for match in _LINK.finditer(self.prose):
            if "`" in match["text"]:
                yield bool(match["image"]), match["target"]

    @property
    def anchors(self) -> set[str]:
        return {slug(heading) for heading in _HEADING.findall(self.prose)}


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


@cache
def pages() -> tuple[Page, ...]:
    """Return the README and every page of docs/."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return tuple(Page(p, p.read_text("utf-8")) for p in files if p.name not in _NOT_OURS)


def page(name: str) -> Page:
    """Return one page by its path below the repository."""
    return next(each for each in pages() if each.name == name)


def blocks(*languages: str) -> list[Block]:
    """Return every block in one of the languages."""
    return [block for each in pages() for block in each.blocks if block.language in languages]
