from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

LIMITS = """\
environment: production
mode: enforce
unknown_price: deny
minimum_isolation: limits
require_results: true
budget: {usd: "1.00", tokens: 1000, calls: 10, seconds: 60}
"""

TOOLS = """\
tools:
  look: {effect: read, description: Looks.}
  push: {effect: write, description: Pushes.}
"""


@pytest.fixture
def registry() -> Path:
    """The registry folder of this repository."""
    return Path(__file__).parents[2] / "registry"


@pytest.fixture
def write_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Write a bundle's files and return its folder."""

    def write(
        cedar: str | dict[str, str] = "",
        *,
        limits: str = LIMITS,
        tools: str = TOOLS,
        environment: str = "production",
    ) -> Path:
        folder = tmp_path / "registry" / "policies" / environment
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "policy.yaml").write_text(limits)
        (folder.parent.parent / "tools.yaml").write_text(tools)
        texts = {"all.cedar": cedar} if isinstance(cedar, str) else cedar
        for name, text in texts.items():
            (folder / name).write_text(text)
        return folder

    return write


@pytest.fixture
def limits_text() -> str:
    return LIMITS
