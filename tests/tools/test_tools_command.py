"""`toolkit tools list`: what is offered, what is listed, and the lines that would list it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cli_world import toolkit
from http_world import DOCUMENT
from tools_world import SERVER, Names, open_toolbox
from workspace_world import write_workspace

from toolkit.settings import Workspace

TOOLS = """
tools: {{}}
servers:
  files:
    transport: stdio
    command: ["{python}", "{server}"]
    tools:
      add: {{effect: read, digest: "sha256:{digest}"}}
      say: {{effect: read}}
http:
  crm:
    openapi: crm.yaml
    base_url: https://crm.example
    operations:
      findCustomer: {{effect: read}}
"""


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    """A workspace with a server and a service."""
    root = tmp_path / "ws"
    root.mkdir()
    made = write_workspace(root)
    text = TOOLS.format(python=sys.executable, server=SERVER, digest="a" * 64)
    (made.registry / "tools.yaml").write_text(text)
    (made.registry / "crm.yaml").write_text(DOCUMENT)
    monkeypatch.chdir(root)
    return made


def test_listing_starts_nothing(listed: Workspace) -> None:
    """Names and hosts come from the files."""
    done = toolkit("tools", "list", "--json")
    assert done.code == 0
    assert done.json == [
        {"name": "crm.findCustomer", "host": "crm.example"},
        {"name": "files.add", "host": None},
        {"name": "files.say", "host": None},
    ]
    assert not (listed.state / "logs" / "server-files.log").exists()


def test_a_server_is_asked_what_it_offers(listed: Workspace) -> None:
    """Each tool with its state, and lines that are valid where they are printed."""
    done = toolkit("tools", "list", "files")
    assert done.code == 0, done.told
    assert "changed since it was approved" in done.out
    assert "not listed" in done.out
    lines = done.out[done.out.index("servers:") :]
    path = listed.registry / "tools.yaml"
    command = f'transport: stdio\n    command: ["{sys.executable}", "{SERVER}"]\n    tools:'
    path.write_text("tools: {}\n" + lines.replace("tools:", command, 1))
    box = open_toolbox(path, {}, Names())
    assert {"files.add", "files.die"} <= set(box.names)
    assert toolkit("tools", "list", "files").out.count("callable") == len(box.names)


def test_a_service_is_described_by_its_document(listed: Workspace) -> None:
    """Every operation that can be called; nothing is asked."""
    done = toolkit("tools", "list", "crm", "--json")
    states = {one["name"]: one["state"] for one in done.json}
    assert states["crm.findCustomer"] == "callable"
    assert states["crm.createCustomer"] == "not listed"
    assert "crm.upload" not in states


def test_an_unknown_server_is_told(listed: Workspace) -> None:
    """With those that there are."""
    done = toolkit("tools", "list", "nobody")
    assert done.code == 78
    assert "crm, files" in done.err
