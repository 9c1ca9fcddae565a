"""Revoke version 3 in a process of its own, so that it can be killed: ``release_script.py ROOT JOB``."""

from __future__ import annotations

import sys
from pathlib import Path

from toolkit.registry import Registry

Registry(Path(sys.argv[1])).releases.revoke(sys.argv[2], 3, by="ana", reason="leaks")
