"""Wheels made by hand, and a uv that finds them in a folder and nothing elsewhere."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from toolkit.environments import Environments, KernelSide, Lock, lock_dependencies
from toolkit.values import digest_bytes


def write_wheel(
    folder: Path,
    name: str,
    version: str,
    files: dict[str, str] | None = None,
    *,
    requires: tuple[str, ...] = (),
    recorded: bool = True,
) -> Path:
    """Write a wheel of one module; ``recorded=False``: RECORD leaves the given files out."""
    info = f"{name}-{version}.dist-info"
    content = {f"{name}.py": f"version = {version!r}\n", **(files or {})}
    body = {path: text.encode() for path, text in content.items()}
    needs = "".join(f"Requires-Dist: {each}\n" for each in requires)
    head = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}"
    body[f"{info}/METADATA"] = head.encode()
    body[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    lines = []
    for path, data in body.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        if recorded or path not in (files or {}):
            lines.append(f"{path},sha256={digest},{len(data)}\n")
    body[f"{info}/RECORD"] = ("".join(lines) + f"{info}/RECORD,,\n").encode()
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, data in body.items():
            archive.writestr(inner, data)
    return path


@dataclass
class Bench:
    """A folder of wheels, a uv that knows nothing else, and environments of a small kernel side."""

    root: Path
    needs: tuple[str, ...] = ("kernelish>=1",)
    text: str = "half = 'the kernel'\n"
    environments: Environments = field(init=False)

    def __post_init__(self) -> None:
        self.wheels.mkdir(exist_ok=True)
        self.renew()

    def renew(self) -> None:
        """Start anew with the kernel side as it is now."""
        sources = (("toolkit/__init__.py", self.text.encode()),)
        side = KernelSide(self.needs, sources, "0.1.0")
        self.environments = Environments(self.root / "environments", self.root, side)

    @property
    def wheels(self) -> Path:
        return self.root / "wheels"

    def lock(self, *requirements: str, python: str = "") -> Lock:
        return lock_dependencies(
            requirements, python, cwd=self.root, kernel_side=self.environments.kernel_side
        )

    def digests(self, *names: str) -> set[str]:
        """SHA-256 in hex of wheels in the folder."""
        files = [path for name in names for path in self.wheels.glob(f"{name}-*.whl")]
        return {digest_bytes(path.read_bytes()).removeprefix("sha256:") for path in files}


def make_bench(root: Path, patch: pytest.MonkeyPatch) -> Bench:
    """Wheels `tiny` 1.0 and 2.0 (which needs `helper`), and what the kernel side needs."""
    made = Bench(root)
    config = root / "uv.toml"
    config.write_text(f"no-index = true\nfind-links = [{str(made.wheels)!r}]\n")
    patch.setenv("UV_CONFIG_FILE", str(config))
    write_wheel(made.wheels, "kernelish", "1.0")
    write_wheel(made.wheels, "helper", "1.0")
    write_wheel(made.wheels, "tiny", "1.0")
    write_wheel(made.wheels, "tiny", "2.0", requires=("helper",))
    return made
