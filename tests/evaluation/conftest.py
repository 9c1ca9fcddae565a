"""Fixtures of the evaluation tests."""

from __future__ import annotations

from evaluation_world import write_set

__all__ = ["write_set"]
