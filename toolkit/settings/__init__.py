"""Where a workspace is and how it is configured.

Rules
-----
* A workspace is the nearest folder at or above the current one that holds ``toolkit.toml``.
* Precedence: ``TOOLKIT_*`` environment variables, then ``toolkit.toml``, then the defaults here.
* Everything that is not in git lives under ``.toolkit/`` (mode 0700): databases, sockets, logs.
* What may be asked over a network is a setting: listed hosts, at addresses that were checked.
* Secrets are never settings: providers name the environment variable that holds their key.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import tempfile
import tomllib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from toolkit.errors import ConfigurationError, Fault, InvalidFile
from toolkit.settings.addresses import (
    AddressGuard,
    Network,
    Resolver,
    network_fault,
    system_resolver,
)
from toolkit.settings.lean_imports import SCHEMA_FORMATS, absent
from toolkit.settings.signals import handling, stop_on_signals, until_signal
from toolkit.settings.strict_yaml import Checked, YamlDocument, model_faults, parse_yaml, read_model

__all__ = [
    "FILE_NAME",
    "SCHEMA_FORMATS",
    "AddressGuard",
    "Checked",
    "Network",
    "Resolver",
    "Settings",
    "Workspace",
    "YamlDocument",
    "absent",
    "find_workspace",
    "handling",
    "model_faults",
    "network_fault",
    "open_workspace",
    "parse_yaml",
    "read_model",
    "stop_on_signals",
    "system_resolver",
    "until_signal",
]

FILE_NAME = "toolkit.toml"
# sun_path holds 107 bytes and a terminating zero on Linux.
_MAX_SOCKET_PATH = 100


class Settings(BaseSettings):
    """The settings of one workspace.

    Attributes:
        database_url: SQLAlchemy URL of ledger tables; empty means SQLite in ``.toolkit/``.
        engine_url: URL of the queue's and schedules' tables; empty means SQLite in ``.toolkit/``.
        mlflow_uri: MLflow tracking URI; empty means SQLite in ``.toolkit/``.
        mlflow_port, lab_port: Loopback ports of the user interfaces; 0 picks a free one.
        experiment: MLflow experiment for sandbox sessions; jobs get one each, named after them.
        registry: Folder of the registry, relative to the workspace; or ``s3://bucket/prefix``, and
            policies, catalogs and evaluation sets stay in the folder ``registry``.
        user, team: Who acts; ``user`` defaults to the login name.
        default_route: Overrides ``default_route`` of ``registry/models.yaml`` when set.
        slots: Jobs that one worker runs at a time.
    """

    model_config = SettingsConfigDict(env_prefix="TOOLKIT_", extra="forbid")

    database_url: str = ""
    engine_url: str = ""
    mlflow_uri: str = ""
    mlflow_port: int = 0
    lab_port: int = 0
    experiment: str = "toolkit-sandbox"
    registry: str = "registry"
    user: str = ""
    team: str = ""
    default_route: str = ""
    slots: int = 2

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file, whose values arrive as init arguments."""
        return env_settings, init_settings


@dataclass(frozen=True)
class Workspace:
    """One workspace: its folder and its settings.

    Attributes:
        root: Absolute folder that holds ``toolkit.toml``.
        settings: See :class:`Settings`.
    """

    root: Path
    settings: Settings

    @cached_property
    def state(self) -> Path:
        """``.toolkit/``, created on first use with mode 0700."""
        path = self.root / ".toolkit"
        path.mkdir(mode=0o700, exist_ok=True)
        return path

    @property
    def registry(self) -> Path:
        """The registry folder: of policies, catalogs and sets, and of all else if in no bucket."""
        folder = "registry" if self.registry_address else self.settings.registry
        return (self.root / folder).resolve()

    @property
    def registry_address(self) -> str | None:
        """``s3://bucket/prefix`` if versions, aliases, signatures and audit log are in a bucket."""
        return self.settings.registry if "://" in self.settings.registry else None

    @property
    def database_url(self) -> str:
        """URL of the ledger."""
        return self.settings.database_url or f"sqlite:///{self.state / 'ledger.db'}"

    @property
    def ledger_heads(self) -> Path:
        """The file that keeps the heads of the ledger's chains, outside of the ledger."""
        return self.state / "ledger-heads.jsonl"

    @property
    def engine_url(self) -> str:
        """URL of the queue and the schedules."""
        return self.settings.engine_url or f"sqlite:///{self.state / 'engine.db'}"

    @property
    def mlflow_uri(self) -> str:
        """MLflow tracking URI."""
        return self.settings.mlflow_uri or f"sqlite:///{self.state / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow artifacts for the embedded default."""
        return self.state / "artifacts"

    @property
    def runs(self) -> Path:
        """Folder of runs' working folders and output notebooks."""
        return self.state / "runs"

    @property
    def user(self) -> str:
        """Who acts."""
        if self.settings.user:
            return self.settings.user
        try:
            return getpass.getuser()
        except (KeyError, OSError):  # a container's uid without a passwd entry
            return f"uid-{os.getuid()}"

    @cached_property
    def socket(self) -> Path:
        """The gateway's unix socket; in a private temporary folder where the path is too long.

        Its folder holds the socket and its port and nothing else: isolated kernels see it.
        """
        path = self.state / "door" / "gateway.sock"
        if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            return path
        tag = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:16]
        folder = Path(tempfile.gettempdir()) / f"toolkit-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
            raise ConfigurationError(
                f"{folder} is not private to this user",
                where=str(folder),
                next_step=f"remove {folder} or move the workspace to a shorter path",
            )
        own = folder / tag
        own.mkdir(mode=0o700, exist_ok=True)
        return own / "gateway.sock"


def find_workspace(start: Path | None = None) -> Path:
    """Return the nearest folder at or above ``start`` that holds ``toolkit.toml``.

    Raises:
        ConfigurationError: There is none.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder
    raise ConfigurationError(
        f"no {FILE_NAME} in {here} or above it",
        where=str(here),
        next_step="run `toolkit init DIR`, or change into a workspace",
    )


def open_workspace(start: Path | None = None) -> Workspace:
    """Find the workspace, read its settings and return both.

    Raises:
        ConfigurationError: There is no workspace here.
        InvalidFile: ``toolkit.toml`` or a ``TOOLKIT_*`` variable has faults (all are named).
    """
    root = find_workspace(start)
    path = root / FILE_NAME
    try:
        text = path.read_text("utf-8")
        values: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidFile.of(str(path), [Fault("file", str(error))]) from error
    try:
        return Workspace(root, Settings(**values))
    except ValidationError as error:
        step = f"see the list of settings in docs/reference.md ({FILE_NAME})"
        found = model_faults(error, _lines(text, values))
        raise InvalidFile.of(
            str(path),
            [replace(fault, where=_place(fault.where), next_step=step) for fault in found],
        ) from error


def _lines(text: str, values: dict[str, Any]) -> YamlDocument:
    """Return settings with their lines, which tomllib does not tell; all are plain keys."""
    lines: dict[tuple[str | int, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name = line.partition("=")[0].strip().strip("\"'[]")
        if name in values:
            lines.setdefault((name,), number)
    return YamlDocument(FILE_NAME, values, lines)


def _place(where: str) -> str:
    """Return the environment variable instead of the file, where one gave the value."""
    variable = f"TOOLKIT_{where.rpartition(' ')[2]}".upper()
    return variable if variable in map(str.upper, os.environ) else where
