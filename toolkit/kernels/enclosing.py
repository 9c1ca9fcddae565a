"""From a kernel's plan to its enclosure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import toolkit
from toolkit.client import gateway_address, wire
from toolkit.isolation import Enclosure, EnclosureSpec
from toolkit.kernels.plan import KernelPlan

__all__ = ["enclosure"]


def enclosure(
    plan: KernelPlan,
    python: Path,
    work: Path,
    environment: Mapping[str, str],
    private: tuple[Path, ...],
) -> Enclosure:
    """Return the enclosure of one kernel, not yet open.

    Args:
        plan: Level, caps, and what else may be read.
        python: The environment's interpreter.
        work: The kernel's working folder.
        environment: The kernel's; says where the gateway is.
        private: Folders of the connection file and of the sockets.
    """
    socket = environment.get(wire.ENV_SOCKET)
    local = socket is not None and "://" not in socket
    address = gateway_address(socket) if local and socket else None
    return Enclosure(
        EnclosureSpec(
            level=plan.level,
            work=work.absolute(),
            python=python,
            private=private,
            # The package itself, which an editable installation keeps elsewhere.
            readable=(*plan.readable, *(Path(folder) for folder in toolkit.__path__)),
            hidden=plan.hidden,
            gateway_socket=Path(socket) if local and socket else None,
            relay_port=(urlsplit(address).port or 0) if address else 0,
            caps=plan.caps,
        )
    )
