"""Fixtures of the room."""

from __future__ import annotations

from magics_notebook import bare_shell, gateway, notebook

__all__ = ["bare_shell", "gateway", "notebook"]
