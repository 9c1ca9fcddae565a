"""A workspace whose routes lead to a scripted upstream on loopback, and SDK clients of its gateway."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from workspace_world import write_workspace

from toolkit.client import Connection, gateway_address, sdk_environment
from toolkit.ledger import Ledger
from toolkit.settings import Workspace
from toolkit.values import CallRecord

# The upstream belongs to the providers' suite; it is one file, and no package.
sys.path.append(str(Path(__file__).parents[1] / "providers"))

MODELS = """
default_route: default
providers:
  house: {{kind: openai, base_url: "{openai}", prices_as: local}}
  claude: {{kind: anthropic, base_url: "{anthropic}", prices_as: local}}
routes:
  default: {{provider: house, model: house-1, max_tokens: 256}}
  careful: {{provider: claude, model: claude-9, max_tokens: 256}}
  twin: {{provider: house, model: house-2, max_tokens: 256}}
  twin-too: {{provider: house, model: house-2, max_tokens: 256}}
  forbidden: {{provider: house, model: house-3, max_tokens: 256}}
"""


def write_doors_workspace(root: Path, openai_url: str, anthropic_url: str) -> Workspace:
    """Write a workspace whose two providers are the upstream."""
    workspace = write_workspace(root)
    text = MODELS.format(openai=openai_url, anthropic=anthropic_url)
    (root / "registry" / "models.yaml").write_text(textwrap.dedent(text).lstrip(), "utf-8")
    return workspace


def address(workspace: Workspace) -> str:
    """Return the loopback address of the workspace's gateway."""
    found = gateway_address(str(workspace.socket))
    assert found is not None
    return found


def token_of(connection: Connection) -> str:
    """Return the run token that a kernel's environment holds."""
    token = connection._token
    assert token is not None
    return token


@contextmanager
def ledger_of(workspace: Workspace) -> Iterator[Ledger]:
    """Open the workspace's ledger."""
    ledger = Ledger.open(workspace.database_url)
    try:
        yield ledger
    finally:
        ledger.close()


def recorded(workspace: Workspace, run_id: str) -> list[CallRecord]:
    """Return a run's calls."""
    with ledger_of(workspace) as ledger:
        return list(ledger.calls(run_id))


def be_kernel(patch: pytest.MonkeyPatch, workspace: Workspace, connection: Connection) -> None:
    """Give this process the variables that a kernel of the toolkit has."""
    variables = sdk_environment(address(workspace), token_of(connection))
    for name, value in variables.items():
        patch.setenv(name, value)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        patch.delenv(name, raising=False)
        patch.delenv(name.lower(), raising=False)
