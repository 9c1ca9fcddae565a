"""The kernel side stays light, and leaves httpx whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "httpx", "pydantic", "mlflow", "sqlalchemy", "pandas", "numpy", "rich", "click", "starlette",
    "uvicorn", "papermill", "nbclient", "dbos", "cedarpy", "IPython", "yaml",
)  # fmt: skip


def fresh(code: str, cwd: Path | None = None) -> dict:
    """Run code in a fresh interpreter and return the JSON that it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", ["toolkit", "toolkit.client", "toolkit.values", "toolkit.errors"])
def test_importing_the_kernel_side_loads_nothing_heavy(name) -> None:
    """What a notebook does not touch, it does not pay for."""
    loaded = fresh(f"import {name}, sys, json; print(json.dumps(list(sys.modules)))")
    assert [heavy for heavy in HEAVY if heavy in loaded] == []


def test_decorating_loads_nothing_heavy_either() -> None:
    """Tools and agents are defined in every notebook."""
    code = """
import sys, json, toolkit
@toolkit.tool
def add(a: int, b: int) -> int: ...
@toolkit.agent
def agent(a: int) -> int: ...
print(json.dumps(list(sys.modules)))
"""
    loaded = fresh(code)
    assert [heavy for heavy in HEAVY if heavy in loaded] == []


def test_the_first_call_loads_nothing_heavy(workspace) -> None:
    """Over the socket of this machine the standard library is enough."""
    code = """
import sys, json, toolkit
text = toolkit.model("hello").text
print(json.dumps({"text": text, "loaded": list(sys.modules)}))
"""
    seen = fresh(code, workspace.root)
    assert seen["text"] == "an answer"
    assert [heavy for heavy in HEAVY if heavy in seen["loaded"]] == []


OVER_TCP = """
import sys, json
{first}
from toolkit.client.transport import OverTcp
carrier = OverTcp("http://127.0.0.1:9")
before = list(sys.modules)
import httpx
client = httpx.Client(transport=httpx.MockTransport(lambda request: httpx.Response(204)))
status = client.get("http://example.invalid").status_code
main = sys.modules.get("httpx._main")
import httpx._main
same = main is None or main is httpx._main
print(json.dumps({{"before": before, "status": status, "main": callable(httpx._main.main), "same": same}}))
"""


@pytest.mark.parametrize("first", ["", "import httpx"])
def test_a_teams_gateway_loads_httpx_without_its_command_line(first: str) -> None:
    """rich and click stay out; httpx is whole for everybody else, whoever imported it first."""
    seen = fresh(OVER_TCP.format(first=first))
    assert (seen["status"], seen["main"], seen["same"]) == (204, True, True)
    assert "httpx" in seen["before"]
    absent = () if first else ("rich", "click")
    assert [heavy for heavy in absent if heavy in seen["before"]] == []


def test_outside_of_a_workspace_the_error_says_what_to_do(tmp_path) -> None:
    """Asked for only when the first call is made."""
    code = """
import json, toolkit
from toolkit.errors import ToolkitError
try:
    toolkit.model("hello")
except ToolkitError as error:
    print(json.dumps(error.to_json()))
"""
    error = fresh(code, tmp_path)
    assert error["code"] == "configuration"
    assert "toolkit init" in error["next_step"]
