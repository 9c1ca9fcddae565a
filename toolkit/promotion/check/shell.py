"""Commands, installations and foreign code: what no gateway sees and no lock file pins."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from toolkit.document import Cell, Magic
from toolkit.promotion.check.findings import Severity
from toolkit.promotion.check.rules import Hit, Rule, Subject

__all__ = ["RULES"]

_SHELL_MAGICS = frozenset(
    {
        *("bash", "sh", "script", "system", "sx", "sc", "cmd", "perl", "ruby", "!"),
        *("python", "python2", "python3", "pypy", "powershell", "zsh", "ls", "ll", "cat"),
        *("rm", "cp", "mv", "mkdir", "rmdir"),
    }
)
_INSTALL_MAGICS = frozenset({"pip", "pip3", "conda", "mamba", "micromamba", "uv", "poetry"})
_FOREIGN_MAGICS = frozenset({"run", "load", "loadpy", "store", "pylab"})
_INSTALL = re.compile(
    r"(?:sudo\s+)?(?:\S*python[\d.]*\s+-m\s+pip|pip[\d.]*|uv|conda|mamba|micromamba|poetry|apt"
    r"|apt-get|yum|dnf|apk|brew|npm|npx|yarn)\b"
)
_CALLS = re.compile(
    r"os\.(system|popen|startfile|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?|fork)"
    r"|subprocess\.(run|Popen|call|check_call|check_output|getoutput|getstatusoutput)"
    r"|pty\.spawn|asyncio\.create_subprocess_(exec|shell)|commands\.getoutput"
)
_IPYTHON = {"system", "getoutput", "system_raw", "system_piped", "run_line_magic", "run_cell_magic"}


def _first_word(text: str) -> str:
    """Return the program's name alone: arguments may hold secrets."""
    match = re.match(r"[\w./-]{1,40}", text)
    return match[0] if match else "…"


def _is_install(magic: Magic) -> bool:
    if magic.kind == "shell":
        return _INSTALL.match(magic.args) is not None
    return magic.name in _INSTALL_MAGICS


def _magics(subject: Subject) -> Iterator[tuple[Cell, Magic]]:
    for cell in subject.code:
        for magic in cell.code.magics:
            yield cell, magic


def _installs(subject: Subject) -> Iterator[Hit]:
    for cell, magic in _magics(subject):
        if _is_install(magic):
            yield Hit("packages are installed while the job runs", cell, magic.line)


def _commands(subject: Subject) -> Iterator[Hit]:
    for cell, magic in _magics(subject):
        if _is_install(magic):
            continue
        if magic.kind == "shell":
            yield Hit(f"the shell command {_first_word(magic.args)} runs", cell, magic.line)
        elif magic.kind in {"cell", "line"} and magic.name in _SHELL_MAGICS:
            sign = "%%" if magic.kind == "cell" else "%"
            yield Hit(f"{sign}{magic.name} starts another program", cell, magic.line)
    for cell in subject.code:
        for call in subject.names.calls(cell):
            dotted = subject.names.dotted(call.func)
            if _CALLS.fullmatch(dotted):
                yield Hit(f"{dotted} starts another program", cell, call.lineno)
            elif _through_ipython(call):
                yield Hit("get_ipython() runs a command", cell, call.lineno)


def _through_ipython(call: ast.Call) -> bool:
    func = call.func
    if not (isinstance(func, ast.Attribute) and func.attr in _IPYTHON):
        return False
    if not (isinstance(func.value, ast.Call) and isinstance(func.value.func, ast.Name)):
        return False
    if func.value.func.id != "get_ipython":
        return False
    if not func.attr.startswith("run_"):
        return True
    first = call.args[0] if call.args else None
    named = first.value if isinstance(first, ast.Constant) else None
    return named in _SHELL_MAGICS | _INSTALL_MAGICS | _FOREIGN_MAGICS


def _foreign(subject: Subject) -> Iterator[Hit]:
    for cell, magic in _magics(subject):
        if magic.kind == "line" and magic.name in _FOREIGN_MAGICS:
            yield Hit(f"%{magic.name} brings in code or values", cell, magic.line)


RULES = (
    Rule(
        "shell-command",
        Severity.ERROR,
        "a command passes no gateway: it is neither decided nor recorded",
        "write it in Python, or make it a tool: a function with @toolkit.tool",
        _commands,
        quotes=False,  # arguments may hold a password
    ),
    Rule(
        "package-install",
        Severity.ERROR,
        "what a notebook installs is pinned nowhere; packages that it declares are locked with its version",
        "declare the package in a dependencies cell (docs/environments.md) and delete the line",
        _installs,
        quotes=False,  # an index address may hold a token
    ),
    Rule(
        "external-code",
        Severity.ERROR,
        "code from outside of the notebook is not part of the sealed version",
        "copy the code into a cell, or into a package of the workspace's requirements",
        _foreign,
    ),
)
