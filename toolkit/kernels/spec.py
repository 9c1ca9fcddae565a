"""Kernelspecs that choose the provisioner of this room.

Format: "Kernel specs" of jupyter_client's documentation; ``metadata.kernel_provisioner`` as in its
page "Customizing the kernel's runtime environment".
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.kernels.plan import KernelPlan

__all__ = ["PROVISIONER_NAME", "kernel_spec", "write_kernel_spec"]

PROVISIONER_NAME = "toolkit-provisioner"
"""The entry point in the group ``jupyter_client.kernel_provisioners``."""


def kernel_spec(
    python: Path, plan: KernelPlan, arguments: tuple[str, ...] = (), display_name: str = "toolkit"
) -> dict[str, Any]:
    """Return the content of a ``kernel.json``.

    Args:
        python: The interpreter of the environment.
        plan: How kernels are started.
        arguments: For ipykernel, after the connection file.
        display_name: What JupyterLab shows.
    """
    return {
        "argv": [
            *(str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"),
            *arguments,
        ],
        "display_name": display_name,
        "language": "python",
        # A signal reaches the wrong process where the kernel has a process namespace of its own.
        "interrupt_mode": "message",
        "metadata": {
            "debugger": True,
            # Named, so that JUPYTER_DEFAULT_PROVISIONER_NAME cannot choose another one.
            "kernel_provisioner": {
                "provisioner_name": PROVISIONER_NAME,
                "config": {"python": str(python), **plan.to_config()},
            },
        },
    }


def write_kernel_spec(folder: Path, spec: dict[str, Any]) -> Path:
    """Write ``kernel.json`` into a folder, whose name is the kernel's; return the file."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "kernel.json"
    path.write_text(json.dumps(spec, indent=1), "utf-8")
    return path
