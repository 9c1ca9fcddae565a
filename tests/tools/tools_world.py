"""Workspaces with servers, services and resolvers that tests control."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from toolkit.tools import Resolver, Toolbox

SERVER = Path(__file__).with_name("mcp_server.py")


def write_tools(root: Path, text: str, **documents: str) -> Path:
    """Write ``registry/tools.yaml`` and documents beside it; return the former's path."""
    registry = root / "registry"
    registry.mkdir(exist_ok=True)
    for name, document in documents.items():
        (registry / f"{name}.yaml").write_text(textwrap.dedent(document), "utf-8")
    path = registry / "tools.yaml"
    path.write_text(textwrap.dedent(text), "utf-8")
    return path


def open_toolbox(path: Path, environ: Mapping[str, str], resolver: Resolver) -> Toolbox:
    """Return the toolbox of a workspace."""
    root = path.parent.parent
    return Toolbox(path, environ=environ, root=root, logs=root / "logs", resolver=resolver)


class Names:
    """A resolver that answers from a table; each name may have another answer every time.

    Attributes:
        asked: The names that were asked for, in order.
    """

    def __init__(self, **answers: list[list[str]] | list[str] | str) -> None:
        self._answers = {name.replace("_", "."): answer for name, answer in answers.items()}
        self.asked: list[str] = []

    def add(self, name: str, *answers: list[str]) -> Names:
        """Add a name with its answers; the last one stays."""
        self._answers[name] = list(answers)
        return self

    async def __call__(self, host: str, port: int) -> list[str]:
        del port
        self.asked.append(host)
        answer = self._answers.get(host)
        if answer is None:
            raise OSError("no such name")
        if isinstance(answer, str):
            return [answer]
        if answer and isinstance(answer[0], list):
            return answer.pop(0) if len(answer) > 1 else answer[0]  # type: ignore[return-value]
        return answer  # type: ignore[return-value]
