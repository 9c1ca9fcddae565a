"""``registry/data.yaml``: the sources that notebooks may ask, and what is known about them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from toolkit.errors import Fault, InvalidFile, NotFound, UsageError
from toolkit.settings import AddressGuard, Resolver, YamlDocument, network_fault, read_model
from toolkit.sources.caps import Caps
from toolkit.sources.promises import Expect
from toolkit.values import DataClass, Labels, Source, check_name

__all__ = [
    "DataCatalog",
    "FilesSettings",
    "Format",
    "HttpSettings",
    "SourceSettings",
    "SqlSettings",
]

_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_EnvName = Annotated[str, Field(pattern=_ENV_NAME)]
_SCHEMA_NAME = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_$]{0,62}$")]
_FILE_SCHEMES = ("", "file", "memory", "s3", "gs", "gcs", "abfs", "az")
_ASKED = ("http", "https", "postgresql", "postgres")
_SECRET = re.compile(r"secret|password|passwd|token|credential|key", re.IGNORECASE)
Format = Literal["csv", "parquet", "json", "text", "bytes"]
_ALL_FORMATS: list[Format] = ["csv", "parquet", "json", "text"]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Labels(_Model):
    """Who may see it, and who could have written it."""

    classes: list[Literal["public", "internal", "confidential", "pii"]] = Field(
        default_factory=list
    )
    sources: list[Literal["internal", "untrusted"]] = Field(default_factory=list)

    def labels(self) -> Labels:
        return Labels(frozenset(map(Source, self.sources)), frozenset(map(DataClass, self.classes)))


class _Column(_Model):
    classes: list[Literal["public", "internal", "confidential", "pii"]] = Field(min_length=1)


class _Common(_Model):
    """What every source says of itself.

    Attributes:
        labels: Of everything that comes from it.
        columns: Further classes by column: ``table.column``, for files and HTTP the name alone.
        max_rows, max_bytes, timeout_s: The most that one read may give and take.
        expect: What its rows promise.
        external: Whether what is asked leaves the house; default: of HTTP services that are not on
            this machine.
        region: Where it is, as policies name it.
    """

    labels: _Labels
    columns: dict[str, _Column] = Field(default_factory=dict)
    max_rows: Annotated[int, Field(ge=1, le=50_000_000)] = 100_000
    max_bytes: Annotated[int, Field(ge=1, le=2_000_000_000)] = 50_000_000
    timeout_s: Annotated[float, Field(gt=0, le=3600, strict=False)] = 30.0
    expect: Expect | None = None
    external: bool | None = None
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _says_who_wrote_it(self) -> _Common:
        if not self.labels.classes or not self.labels.sources:
            msg = "labels needs at least one of classes and one of sources"
            raise ValueError(msg)
        return self

    def caps(self, name: str) -> Caps:
        """Return the caps of one read."""
        return Caps(name, self.max_rows, self.max_bytes, self.timeout_s)

    def place(self) -> dict[str, str | bool]:
        """Return what policies may know of where it is: ``external``, ``host``, ``region``."""
        url = urlsplit(getattr(self, "url", ""))
        asked = url.scheme in _ASKED
        outside = url.scheme in ("http", "https") and not _loopback(url.geturl())
        found: dict[str, str | bool] = {
            "external": outside if self.external is None else self.external
        }
        if asked and url.hostname:
            found["host"] = url.hostname
        if self.region is not None:
            found["region"] = self.region
        return found

    def source_labels(self) -> Labels:
        """Return the labels of everything that comes from the source."""
        return self.labels.labels()

    def column_labels(self, name: str) -> Labels:
        """Return what is known of one column besides."""
        column = self.columns.get(name)
        classes = column.classes if column else ()
        return Labels(classes=frozenset(map(DataClass, classes)))


class SqlSettings(_Common):
    """A database.

    Attributes:
        url: ``sqlite:///path`` or ``postgresql://user@host/database``, without a password.
        password_env: Name of the gateway's environment variable that holds the password.
        schemas: PostgreSQL schemas that may be read; the first one needs not be named.
        writable: Whether ``.execute`` may change it, if policy permits.
    """

    kind: Literal["sql"]
    url: str
    password_env: _EnvName | None = None
    schemas: Annotated[list[_SCHEMA_NAME], Field(min_length=1)] = Field(
        default_factory=lambda: ["public"]
    )
    writable: bool = False

    @field_validator("url")
    @classmethod
    def _is_a_database(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme == "sqlite":
            if parts.netloc or parts.query or not parts.path.strip("/"):
                msg = "is not sqlite:///path (three slashes: in the workspace; four: absolute)"
                raise ValueError(msg)
        elif parts.scheme not in ("postgresql", "postgres"):
            msg = "is neither sqlite:///… nor postgresql://…"
            raise ValueError(msg)
        _no_password(value)
        return value

    @property
    def dialect(self) -> Literal["sqlite", "postgres"]:
        """As sqlglot calls it."""
        return "sqlite" if self.url.startswith("sqlite:") else "postgres"

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return (self.password_env,) if self.password_env else ()


class FilesSettings(_Common):
    """A folder or a bucket.

    Attributes:
        url: A folder of the workspace, ``file:///folder``, ``s3://bucket/prefix`` …
        options: Plain options of its fsspec file system.
        options_env: Further options, each with the environment variable that holds it.
        formats: What may be read.
    """

    kind: Literal["files"]
    url: str
    options: dict[str, str | int | bool] = Field(default_factory=dict)
    options_env: dict[str, _EnvName] = Field(default_factory=dict)
    formats: Annotated[list[Format], Field(min_length=1)] = Field(
        default_factory=lambda: list(_ALL_FORMATS)
    )

    @field_validator("url")
    @classmethod
    def _is_a_place(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in _FILE_SCHEMES or "::" in value or not value:
            msg = "is neither a folder nor one of file, memory, s3, gs, abfs"
            raise ValueError(msg)
        if parts.scheme == "file" and (parts.netloc or not parts.path.startswith("/")):
            msg = "is not file:///absolute/folder; a folder of the workspace has no file:"
            raise ValueError(msg)
        _no_password(value)
        return value

    @field_validator("options")
    @classmethod
    def _hold_no_secret(cls, value: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
        if found := sorted(name for name in value if _SECRET.search(name)):
            msg = f"options holds {', '.join(found)}; credentials belong in options_env"
            raise ValueError(msg)
        return value

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return tuple(self.options_env.values())


class HttpSettings(_Common):
    """An HTTP service that answers GET.

    Attributes:
        url: Everything that is read lies under it.
        token_env: Name of the environment variable that holds a bearer token.
        allow_private: Networks inside the house that its name may point to, in CIDR notation.
            Loopback addresses only where they are written here as such.
        formats: What may be read.
    """

    kind: Literal["http"]
    url: str
    token_env: _EnvName | None = None
    allow_private: list[str] = Field(default_factory=list)
    formats: Annotated[list[Format], Field(min_length=1)] = Field(
        default_factory=lambda: list(_ALL_FORMATS)
    )

    @field_validator("url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = "is not an http:// or https:// address"
            raise ValueError(msg)
        if parts.username or parts.query or parts.fragment:
            msg = "holds a user, query or fragment"
            raise ValueError(msg)
        _no_password(value)
        return value.rstrip("/")

    @field_validator("allow_private")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        if faults := [fault for network in value if (fault := network_fault(network))]:
            raise ValueError("; ".join(faults))
        return value

    @property
    def variables(self) -> tuple[str, ...]:
        """Variables of the gateway's environment that it needs."""
        return (self.token_env,) if self.token_env else ()

    def guard(self, name: str, resolver: Resolver) -> AddressGuard:
        """Return what may be asked: the host of ``url``, at checked addresses."""
        networks = tuple(map(ipaddress.ip_network, self.allow_private))
        return AddressGuard(name, self.url, (), networks, resolver, "registry/data.yaml")

    @model_validator(mode="after")
    def _keeps_its_token(self) -> HttpSettings:
        if self.token_env and self.url.startswith("http://") and not _loopback(self.url):
            msg = "url would send the token in clear text: use https"
            raise ValueError(msg)
        return self


SourceSettings = SqlSettings | FilesSettings | HttpSettings


class _File(_Model):
    sources: dict[
        str, Annotated[SqlSettings | FilesSettings | HttpSettings, Field(discriminator="kind")]
    ]


@dataclass(frozen=True)
class DataCatalog:
    """The sources of a workspace; immutable.

    Attributes:
        path: The file.
        sources: Settings by name.
    """

    path: Path
    sources: Mapping[str, SourceSettings]

    @classmethod
    def load(cls, path: Path) -> DataCatalog:
        """Read ``data.yaml``.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The file has faults (all are named).
        """
        step = "write registry/data.yaml; docs/data.md has an example"
        read = read_model(path, _File, "data catalog", missing=step)
        if faults := _name_faults(read.value, read.document):
            raise InvalidFile.of(str(path), faults)
        return cls(path, MappingProxyType(dict(read.value.sources)))

    def source(self, name: str) -> SourceSettings:
        """Return a source's settings.

        Raises:
            NotFound: There is no such source; the message names those that exist.
        """
        if name not in self.sources:
            known = ", ".join(sorted(self.sources)) or "none"
            raise NotFound(
                f"there is no data source {name!a}; {self.path.name} has {known}",
                where=f"{self.path.name}: sources",
                next_step=f"use one of {known}, or add the source to registry/{self.path.name}",
            )
        return self.sources[name]


def _name_faults(file: _File, document: YamlDocument) -> list[Fault]:
    faults = []
    for name, source in file.sources.items():
        try:
            check_name(name)
        except UsageError as error:
            place = document.place(("sources", name))
            faults.append(Fault(place, error.message, error.next_step))
        if isinstance(source, SqlSettings):
            faults.extend(
                Fault(
                    document.place(("sources", name, "columns", column)),
                    f"{column!a} is not table.column",
                )
                for column in source.columns
                if "." not in column
            )
    return faults


def _no_password(url: str) -> None:
    parts = urlsplit(url)
    named = [name for name, _ in parse_qsl(parts.query) if _SECRET.search(name)]
    if parts.password or named:
        msg = "holds a password; name the variable that holds it (password_env, options_env)"
        raise ValueError(msg)


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
