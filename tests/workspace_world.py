"""A small workspace with a scripted provider, and how its gateway is ended: shared by suites."""

from __future__ import annotations

import contextlib
import os
import signal
import textwrap
import time
from pathlib import Path

from toolkit.gateway import read_record
from toolkit.settings import Workspace, open_workspace

SCRIPT = """
answers:
  - when: {contains: slow}
    text: late
    delay_s: 1.5
  - when: {contains: broken}
    fail: server
  - when: {contains: json}
    data: {spdx: MIT}
  - text: "an answer"
    input_tokens: 7
    output_tokens: 3
"""

MODELS = """
default_route: default
providers:
  script: {kind: scripted, script: answers.yaml}
  unknown: {kind: scripted, script: answers.yaml, prices_as: openai}
routes:
  default:
    provider: script
    model: scripted-1
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
  unpriced: {provider: unknown, model: scripted-2, max_tokens: 64}
  forbidden:
    provider: script
    model: scripted-3
    max_tokens: 64
    price: {input_per_million_usd: 1.0, output_per_million_usd: 2.0}
"""

PRODUCTION = """
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "0.01", tokens: 100000, calls: 200, seconds: 120}
gates: {}
"""

SANDBOX = """
environment: sandbox
mode: warn
unknown_price: allow
minimum_isolation: none
require_results: false
budget: {usd: "5.00", tokens: 5000000, calls: 50000, seconds: null}
gates: {}
"""

RULES = """
@id("all-agents") permit(principal, action == Action::"call_agent", resource);
@id("all-results") permit(principal, action == Action::"publish_result", resource);
@id("priced-routes") permit(principal, action == Action::"call_model", resource);
@id("no-forbidden-route") @reason("this route is closed for maintenance")
forbid(principal, action == Action::"call_model", resource == Route::"forbidden");
@id("catalogued") permit(principal, action == Action::"call_tool", resource in Catalog::"tools");
"""

TOOLS = """
tools:
  add: {effect: read, description: Adds two numbers.}
  write_file: {effect: write, description: Appends a line to a file.}
"""


def write_workspace(root: Path) -> Workspace:
    """Write a small workspace with a scripted provider."""
    production = root / "registry" / "policies" / "production"
    sandbox = root / "registry" / "policies" / "sandbox"
    for folder in (production, sandbox, root / "notebooks", root / "registry" / "evaluations"):
        folder.mkdir(parents=True)
    files = {
        root / "toolkit.toml": 'user = "ana"\n',
        root / "registry" / "models.yaml": MODELS,
        root / "registry" / "answers.yaml": SCRIPT,
        root / "registry" / "tools.yaml": TOOLS,
        production / "policy.yaml": PRODUCTION,
        production / "rules.cedar": RULES,
        sandbox / "policy.yaml": SANDBOX,
        sandbox / "rules.cedar": '@id("sandbox") permit(principal, action, resource);\n',
    }
    for path, text in files.items():
        path.write_text(textwrap.dedent(text).lstrip(), "utf-8")
    return open_workspace(root)


def end_gateway(workspace: Workspace, *, number: int = signal.SIGTERM) -> int | None:
    """End the workspace's own gateway by pid; return the pid, ``None`` if none ran."""
    record = read_record(workspace.state)
    if record is None:
        return None
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, number)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and Path(f"/proc/{record.pid}/stat").exists():
        if Path(f"/proc/{record.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.02)
    return record.pid
