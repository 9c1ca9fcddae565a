"""The cell magics: ``%%model``, ``%%tool``, ``%%agent``, ``%%evaluate``."""

from __future__ import annotations

import inspect
from typing import Any, ClassVar

from toolkit.client import ModelReply, agent, model, tool
from toolkit.errors import UsageError
from toolkit.magics.define import define
from toolkit.magics.evaluate import evaluate, find_agent
from toolkit.magics.extension import Extension
from toolkit.magics.options import Options
from toolkit.magics.prompt import fill, look_up

__all__ = ["CellMagics"]

_MODEL = (
    Options("%%model", "Ask a model; the cell is the prompt.")
    .flag("route", nargs="?", metavar="ROUTE")
    .flag("--out", metavar="VAR")
    .flag("--schema", metavar="CLASS")
    .flag("--system", metavar="TEXT")
    .flag("--max-tokens", type=int, metavar="N")
    .flag("--temperature", type=float, metavar="T")
    .flag("--seed", type=int, metavar="N")
    .flag("--tools", metavar="F,G")
)
_TOOL = (
    Options("%%tool", "Make the cell's function a governed tool.")
    .flag("--effect", choices=("read", "write"), default="read")
    .flag("--name", metavar="NAME")
)
_AGENT = Options("%%agent", "Make the cell's function an agent.").flag("--name", metavar="NAME")
_EVALUATE = (
    Options("%%evaluate", "Run an evaluation set against an agent of this notebook.")
    .flag("set", metavar="SET")
    .flag("--agent", metavar="NAME")
    .flag("--limit", type=int, metavar="N")
    .flag("--trials", type=int, metavar="N")
)


class CellMagics:
    """Cell magics of one shell.

    Args:
        shell: The IPython shell.
        extension: What the shell's toolkit knows.
    """

    kinds: ClassVar[dict[str, str]] = {
        "model": "cell",
        "tool": "cell",
        "agent": "cell",
        "evaluate": "line_cell",
    }

    def __init__(self, shell: Any, extension: Extension) -> None:
        self.shell = shell
        self.extension = extension

    def model(self, line: str, cell: str) -> ModelReply:
        """``%%model [ROUTE] [--out VAR] [--schema CLASS] [--system TEXT] [--tools F,G] …``.

        The cell is the prompt; ``{expressions}`` are filled from the notebook's names.  The reply
        is shown, is the cell's value, and goes into VAR (with a schema: the reply's data).
        """
        options = _MODEL.read(line)
        names: dict[str, Any] = self.shell.user_ns
        if options.out and not options.out.isidentifier():
            raise UsageError(f"--out {options.out!r} is not a variable's name")
        wanted = [name.strip() for name in (options.tools or "").split(",") if name.strip()]
        prompt = fill(cell.strip("\n"), names)
        if not prompt.strip():
            raise UsageError("the prompt is empty", next_step="write it below the %%model line")
        arguments = {
            "route": options.route,
            "system": fill(options.system, names, "--system") if options.system else None,
            "schema": look_up(options.schema, names, "--schema") if options.schema else None,
            "tools": [look_up(name, names, "--tools") for name in wanted],
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "seed": options.seed,
        }
        self.extension.connected()
        reply = model(prompt, **arguments)
        if options.out:
            names[options.out] = reply if options.schema is None else reply.data
        return reply

    def tool(self, line: str, cell: str) -> None:
        """``%%tool [--effect read|write] [--name NAME]``: the cell's one function is a tool."""
        options = _TOOL.read(line)
        made = define(self.shell, cell, tool(effect=options.effect, name=options.name), "%%tool")
        self._tell(made, f"tool, {options.effect}s")

    def agent(self, line: str, cell: str) -> None:
        """``%%agent [--name NAME]``: the cell's one function is an agent."""
        options = _AGENT.read(line)
        made = define(self.shell, cell, agent(name=options.name), "%%agent")
        self._tell(made, "agent")

    def _tell(self, made: Any, what: str) -> None:
        self.extension.publish(
            {"text/plain": f"{made.__toolkit_name__}{inspect.signature(made)}  [{what}]"}
        )

    def evaluate(self, line: str, cell: str | None = None) -> None:
        """``%evaluate SET [--agent NAME] [--limit N] [--trials N]``.

        As ``%%evaluate`` the cell runs first.
        """
        options = _EVALUATE.read(line)
        if cell and cell.strip():
            exec(self.shell.transform_cell(cell), self.shell.user_ns)  # noqa: S102 - the person's cell
        function = find_agent(self.shell.user_ns, options.agent)
        connection = self.extension.connected()
        evaluation = evaluate(connection, options.set, function, options.limit, options.trials)
        self.extension.publish(evaluation)
