"""How a kernel is to be started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.values import Caps, IsolationLevel

__all__ = ["KernelPlan"]

_NO_CAPS = Caps()


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """How one kernel is started; travels as ``kernel_provisioner.config`` of a kernelspec.

    Attributes:
        level: How far the kernel is kept from the machine.
        caps: What it may use.
        readable: From L2 on: files and folders that the kernel may read beside its working folder
            and its environment.
        hidden: From L2 on: folders below those that are empty for it.
        warm: Whether to fork it from a zygote where one serves.
        zygotes: Folder of zygotes, mode 0700, usually ``.toolkit/zygotes``; without one every
            start is cold.
        wait_s: Seconds to wait for a zygote that is still importing; 0 starts cold meanwhile.
    """

    level: IsolationLevel = IsolationLevel.L0
    caps: Caps = _NO_CAPS
    readable: tuple[Path, ...] = ()
    hidden: tuple[Path, ...] = ()
    warm: bool = False
    zygotes: Path | None = None
    wait_s: float = 0.0

    def to_config(self) -> dict[str, Any]:
        """Return the plan as JSON values; :meth:`from_config` is its inverse."""
        return {
            "level": int(self.level),
            "caps": {name: value for name, value in asdict(self.caps).items() if value is not None},
            "readable": [str(path) for path in self.readable],
            "hidden": [str(path) for path in self.hidden],
            "warm": self.warm,
            "zygotes": str(self.zygotes) if self.zygotes else "",
            "wait_s": self.wait_s,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> KernelPlan:
        """Read what :meth:`to_config` wrote; members that are not there have their defaults.

        Raises:
            ValueError, TypeError: A member has no meaning.
        """
        return cls(
            level=IsolationLevel(config.get("level", 0)),
            caps=Caps(**config.get("caps", {})),
            readable=tuple(map(Path, config.get("readable", ()))),
            hidden=tuple(map(Path, config.get("hidden", ()))),
            warm=bool(config.get("warm", False)),
            zygotes=Path(config["zygotes"]) if config.get("zygotes") else None,
            wait_s=float(config.get("wait_s", 0.0)),
        )
