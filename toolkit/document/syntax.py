"""IPython's additions to Python, taken out line by line so that ``ast`` can read the rest.

Line numbers stay what they were.  ``!cmd``, ``%magic``, ``name?`` and autocalls become ``pass``,
``x = !cmd`` becomes ``x = None``, the bodies of cell magics that run Python stay, other bodies
become empty lines.  Own code rather than IPython's ``TransformerManager`` because that one costs
0.2 s to import and moves lines; a test compares the two on which cells parse.
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from typing import Literal

__all__ = ["Magic", "Plain", "plain_python"]

_PYTHON_CELLS = frozenset(
    {
        *("time", "timeit", "prun", "capture", "debug", "memit", "mprun", "lprun", "scalene"),
        *("snakeviz", "heat", "tool", "agent"),
    }
)
_PYTHON_LINES = _PYTHON_CELLS - {"capture", "heat", "tool", "agent"}
# IPython accepts a cell of one line that is a magic's name without its percent sign.
_AUTOMAGIC = re.compile(
    r"(pip|conda|mamba|uv|ls|ll|cd|pwd|cat|mkdir|rmdir|rm|cp|mv|matplotlib|load_ext|who|whos"
    r"|reset|run|env|history|system|sx|time|timeit)(?:[ \t]+([^\s=(.,:+*/%&|^<>@\[-].*|--?\w.*))?"
)
_SUSPECT = re.compile(r"^[ \t]*(?:[%!?,;/]|>>>|In \[|\.\.\.)|=[ \t]*[!%]|\?[ \t]*$", re.MULTILINE)
_ESCAPE = re.compile(r"([ \t]*)(%%|%|!!|!|\?\??|,|;|/)(.*)", re.DOTALL)
_HELP_END = re.compile(r"(%{0,2}(?!\d)[\w*]+(\.(?!\d)[\w*]+|\[-?[0-9]+\])*)\?\??[ \t]*$", re.ASCII)
_TOKEN = re.compile(r"\"\"\"|'''|[\"'#()\[\]{}]|\\[ \t]*$|=")
_STRING_END = {
    quote: re.compile(rf"(?:[^\\]|\\.)*?{quote}", re.DOTALL) for quote in ('"', "'", '"""', "'''")
}
_OPTION = re.compile(r"-[a-zA-Z](?:[ \t]*\d+)?(?=[ \t]|$)[ \t]*")


@dataclass(frozen=True, slots=True)
class Magic:
    """One piece of IPython syntax.

    Attributes:
        line: 1-based line in the cell.
        kind: ``cell`` (``%%x``), ``line`` (``%x``), ``shell`` (``!x``), ``help`` or ``call``.
        name: The magic's name, ``!`` for shell.
        args: The rest of the line, continued lines joined.
        body: The cell's other lines, for kind ``cell``.
    """

    line: int
    kind: Literal["cell", "line", "shell", "help", "call"]
    name: str
    args: str = ""
    body: str = ""


@dataclass(frozen=True, slots=True)
class Plain:
    """A cell without IPython's additions.

    Attributes:
        python: Python source with as many lines as the cell.
        magics: What was taken out, in order.
    """

    python: str
    magics: tuple[Magic, ...] = ()


def plain_python(source: str) -> Plain:
    """Take IPython's syntax out of a cell; never raises."""
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    lines = source.split("\n")
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None:
        return Plain("\n" * (len(lines) - 1))
    automagic = _automagic(lines, first)
    if automagic:
        return Plain(_blank(lines), (automagic,))
    indented = lines[first][0] in " \t"
    if not indented and not _SUSPECT.search(source):
        return Plain(source)
    if indented:
        lines = textwrap.dedent(source).split("\n")
    lines = _without_prompts(lines, first)
    return _cell_magics(lines)


def _blank(lines: list[str]) -> str:
    return "\n" * (len(lines) - 1)


def _automagic(lines: list[str], first: int) -> Magic | None:
    if any(line.strip() for line in lines[first + 1 :]):
        return None
    match = _AUTOMAGIC.fullmatch(lines[first].strip())
    return Magic(first + 1, "line", match[1], match[2] or "") if match else None


def _without_prompts(lines: list[str], first: int) -> list[str]:
    """Drop ``>>> `` and ``In [1]: `` prompts of a pasted session."""
    for initial, prompt in (
        (r">>>( |$)", r"(>>>|\.\.\.)( |$)"),
        (r"In \[\d+\]: ", r"\s*(In \[\d+\]: |\.{3,}: ?)"),
    ):
        if re.match(initial, lines[first]):
            return [re.sub(f"^{prompt}", "", line) for line in lines]
    return lines


def _cell_magics(lines: list[str]) -> Plain:
    """Handle ``%%x`` at the top, which may stand above another one."""
    magics: list[Magic] = []
    start = 0
    while True:
        while start < len(lines) and not lines[start].strip():
            start += 1
        head = lines[start] if start < len(lines) else ""
        if not head.startswith("%%") or re.match(r"%%\w+\?", head):
            break
        name, _, args = head[2:].partition(" ")
        body = "\n".join(lines[start + 1 :])
        magics.append(Magic(start + 1, "cell", name.strip(), args.strip(), body))
        lines = [*lines[:start], "", *lines[start + 1 :]]
        if name.strip() not in _PYTHON_CELLS:
            return Plain(_blank(lines), tuple(magics))
    stripped = _Stripper(lines)
    stripped.run()
    return Plain("\n".join(stripped.lines), (*magics, *stripped.magics))


class _Stripper:
    """Walks over the lines and knows whether a line begins a statement."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = list(lines)
        self.magics: list[Magic] = []
        self.depth = 0
        self.quote = ""
        self.continued = False
        self.assigned = False  # the statement has had its first "="
        self.commented = False  # the last line ends with a comment

    def run(self) -> None:
        index = start = 0
        while index < len(self.lines):
            if self._closed():
                start = index
                self.assigned = False
                end = self._escaped(index)
                if end:
                    index = end
                    continue
            line = self.lines[index]
            end = self._scan(index)
            if end is None and self._closed() and self._asks_for_help(line):
                self._help(start, index)
            index = end or index + 1

    def _closed(self) -> bool:
        """Whether a statement ended on the last line."""
        return not (self.depth or self.quote or self.continued)

    def _joined(self, index: int, text: str) -> tuple[str, int]:
        """Join backslash-continued lines to ``text``; blank them; return the next index."""
        parts = [text]
        while parts[-1].endswith("\\") and index + 1 < len(self.lines):
            parts[-1] = parts[-1][:-1]
            index += 1
            parts.append(self.lines[index])
            self.lines[index] = ""
        return " ".join(part.strip() for part in parts), index + 1

    def _escaped(self, index: int) -> int | None:
        match = _ESCAPE.fullmatch(self.lines[index])
        if match is None:
            return None
        indent, sign, rest = match.groups()
        text, end = self._joined(index, rest)
        code = self._record(index + 1, sign, text)
        self.lines[index] = indent + code
        return end

    def _record(self, line: int, sign: str, text: str) -> str:
        """Note the magic; return the Python that stands for it."""
        if sign in {",", ";", "/"}:
            self.magics.append(Magic(line, "call", sign, text))
        elif sign.startswith("?") or (sign.startswith("%") and text.endswith("?")):
            self.magics.append(Magic(line, "help", "?", text))
        elif sign.startswith("!"):
            self.magics.append(Magic(line, "shell", "!", text))
        else:
            name, _, args = text.partition(" ")
            self.magics.append(Magic(line, "line", name, args.strip()))
            if name in _PYTHON_LINES:
                return self._timed(line, args)
        return "pass"

    def _timed(self, line: int, args: str) -> str:
        code = args.strip()
        while match := _OPTION.match(code):
            code = code[match.end() :]
        inner = _ESCAPE.fullmatch(code)
        if inner:
            return self._record(line, inner[2], inner[3])
        try:
            ast.parse(code)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            return "pass"
        return code or "pass"

    def _asks_for_help(self, line: str) -> bool:
        # Python has no question mark outside of strings and comments.
        return (
            line.rstrip().endswith("?")
            and not self.commented
            and _HELP_END.search(line) is not None
        )

    def _help(self, start: int, end: int) -> None:
        """Replace the statement from line ``start`` to ``end`` (0-based), which asks for help."""
        first = self.lines[start]
        text = " ".join(line.strip() for line in self.lines[start : end + 1])
        self.magics.append(Magic(start + 1, "help", "?", text))
        self.lines[start : end + 1] = [""] * (end + 1 - start)
        self.lines[start] = first[: len(first) - len(first.lstrip())] + "pass"

    def _scan(self, index: int) -> int | None:
        """Advance the state over one line; handle ``x = !cmd`` and ``x = %magic``."""
        line = self.lines[index]
        at = self._consume(line)
        if at is None:
            return None
        rest = line[at + 1 :].lstrip()
        text, end = self._joined(index, rest[1:])
        name, _, args = text.partition(" ")
        if rest[0] == "!":
            self.magics.append(Magic(index + 1, "shell", "!", text))
        else:
            self.magics.append(Magic(index + 1, "line", name, args.strip()))
        self.lines[index] = f"{line[: at + 1]} None"
        self.continued = False
        return end

    def _consume(self, line: str) -> int | None:
        """Advance over ``line``; return the column of an ``=`` before ``!`` or ``%``."""
        self.continued = self.commented = False
        at = 0
        while at < len(line):
            if self.quote:
                end = _STRING_END[self.quote].match(line, at)
                if end is None:
                    self._unfinished(line)
                    return None
                self.quote, at = "", end.end()
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                break
            if token[0] == "#":
                self.commented = True
                break
            if self._token(token[0], line, token.start()):
                return token.start()
            at = token.end()
        return None

    def _unfinished(self, line: str) -> None:
        backslashes = len(line) - len(line.rstrip("\\"))
        if len(self.quote) == 1 and backslashes % 2 == 0:
            self.quote = ""  # an error in Python too, which its parser will report

    def _token(self, sign: str, line: str, at: int) -> bool:
        if sign in _STRING_END:
            self.quote = sign
        elif sign in "([{":
            self.depth += 1
        elif sign in ")]}":
            self.depth = max(0, self.depth - 1)
        elif sign.startswith("\\"):
            self.continued = True
        elif not self.depth and not self.assigned and self._is_assignment(line, at):
            self.assigned = True
            return line[at + 1 :].lstrip().startswith(("!", "%"))
        return False

    @staticmethod
    def _is_assignment(line: str, at: int) -> bool:
        before, after = line[max(0, at - 1) : at], line[at + 1 : at + 2]
        return after != "=" and before not in set("=!<>+-*/%&|^@:~")
