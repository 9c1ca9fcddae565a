"""``registry/models.yaml``: providers, and the routes that name their models."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from toolkit.errors import Fault, InvalidFile, NotFound, UsageError
from toolkit.providers.route_fields import RouteFields
from toolkit.providers.routes import Route
from toolkit.settings import YamlDocument, read_model
from toolkit.values import check_name

__all__ = ["Catalog", "ProviderSettings"]

_OFFICIAL = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_ONLY_FOR: dict[str, tuple[str, ...]] = {
    "base_url": ("openai", "anthropic"),
    "api_key_env": ("openai", "anthropic"),
    "max_tokens_field": ("openai",),
    "strict_schema": ("openai",),
    "proxy": ("openai", "anthropic"),
    "model_path": ("local",),
    "n_ctx": ("local",),
    "cache_prompt": ("local",),
    "threads": ("local",),
    "script": ("scripted",),
}


class ProviderSettings(BaseModel):
    """One provider of ``models.yaml``.

    Attributes:
        kind: ``local`` (llama.cpp in this process), ``openai`` (any server that speaks OpenAI's
            chat completions), ``anthropic``, ``scripted`` (answers from a file).
        base_url: Where it is; default: the official address of the kind.
        api_key_env: Name of the environment variable that holds the key.
        max_tokens_field: How this server calls the limit of answer tokens.
        strict_schema: Ask the server for OpenAI's strict schema mode.
        proxy: URL of an HTTP proxy; the environment's proxy variables are not used.
        model_path: A GGUF file, relative to ``models.yaml``; default: the wheel's SmolLM2.
        n_ctx: Tokens that prompt and answer may have together (local).
        cache_prompt: Reuse work on a common beginning: faster, but an answer may then depend
            on the calls before it (local).
        threads: Threads that compute; more are slower on a busy machine (local).
        script: The answers' file, relative to ``models.yaml``.
        prices_as: The provider's name in the price table, when it is not plain from the kind.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["local", "openai", "anthropic", "scripted"]
    base_url: str | None = None
    api_key_env: Annotated[str, Field(pattern=_ENV_NAME)] | None = None
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    strict_schema: bool = False
    proxy: str | None = None
    model_path: str | None = None
    n_ctx: Annotated[int, Field(ge=256, le=1_048_576)] = 4096
    cache_prompt: bool = False
    threads: Annotated[int, Field(ge=1, le=256)] = 1
    script: str | None = None
    prices_as: Annotated[str, Field(min_length=1, max_length=64)] | None = None

    @field_validator("base_url", "proxy")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            msg = "is not an http:// or https:// address"
            raise ValueError(msg)
        if parts.username or parts.password or parts.query or parts.fragment:
            msg = "holds a user, password, query or fragment; keys belong in api_key_env"
            raise ValueError(msg)
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ProviderSettings:
        problems = [
            f"{name} has no meaning for kind {self.kind}"
            for name, kinds in _ONLY_FOR.items()
            if name in self.model_fields_set and self.kind not in kinds
        ]
        if self.kind == "scripted" and self.script is None:
            problems.append("script is missing")
        if self.api_key_env and self.address.startswith("http://") and not _loopback(self.address):
            problems.append("base_url would send the key in clear text: use https")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def address(self) -> str:
        """The base URL, without a slash at the end; empty for in-process kinds."""
        return self.base_url or _OFFICIAL.get(self.kind, "")

    @property
    def price_provider(self) -> str | None:
        """The provider's name in the price table; ``None`` when prices are not known."""
        if self.prices_as:
            return self.prices_as
        if self.kind in ("local", "scripted"):
            return "local"
        return self.kind if self.address == _OFFICIAL[self.kind] else None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    providers: dict[str, ProviderSettings]
    routes: dict[str, RouteFields]
    default_route: str


@dataclass(frozen=True)
class Catalog:
    """The providers and routes of a workspace; immutable.

    Attributes:
        path: The file; paths inside it are relative to its folder.
        providers: Settings by provider name.
        routes: Routes by name.
        default_route: The route of calls that name none.
    """

    path: Path
    providers: Mapping[str, ProviderSettings]
    routes: Mapping[str, Route]
    default_route: str

    @classmethod
    def load(cls, path: Path) -> Catalog:
        """Read ``models.yaml``.

        Raises:
            NotFound: There is no such file.
            InvalidFile: The file has faults (all are named).
        """
        read = read_model(
            path,
            _File,
            "model catalog",
            missing="run `toolkit init` for a workspace with a first models.yaml",
        )
        file = read.value
        faults = _cross_check(file, read.document)
        if faults:
            raise InvalidFile.of(str(path), faults)
        routes = {name: _route(name, route, file) for name, route in file.routes.items()}
        return cls(
            path,
            MappingProxyType(dict(file.providers)),
            MappingProxyType(routes),
            file.default_route,
        )

    def route(self, name: str | None) -> Route:
        """Return a route by name; ``None`` is the default route.

        Raises:
            NotFound: There is no such route; the message names those that exist.
        """
        wanted = self.default_route if name is None else name
        if wanted not in self.routes:
            known = ", ".join(sorted(self.routes))
            raise NotFound(
                f"there is no model route {wanted!a}; {self.path.name} has {known}",
                where=f"{self.path}: routes",
                next_step=f"use one of {known}, or add the route to {self.path.name}",
            )
        return self.routes[wanted]


def _route(name: str, route: RouteFields, file: _File) -> Route:
    return route.build(name, {key: each.price_provider for key, each in file.providers.items()})


def _cross_check(file: _File, document: YamlDocument) -> list[Fault]:
    faults = []
    for section, names in (("providers", file.providers), ("routes", file.routes)):
        for name in names:
            try:
                check_name(name)
            except UsageError as error:
                place = document.place((section, name))
                faults.append(Fault(place, error.message, error.next_step))
    for name, route in file.routes.items():
        for path, provider in route.providers():
            place = document.place(("routes", name, *path, "provider"))
            faults += [
                Fault(place, message) for message in _misfits(provider, route, file.providers)
            ]
    if file.default_route not in file.routes:
        known = ", ".join(sorted(file.routes)) or "none"
        message = f"names the route {file.default_route!a}; the routes are {known}"
        faults.append(Fault(document.place(("default_route",)), message))
    return faults


def _misfits(
    name: str, route: RouteFields, providers: Mapping[str, ProviderSettings]
) -> Iterator[str]:
    """What is wrong with a route's use of a provider."""
    if name not in providers:
        known = ", ".join(sorted(providers)) or "none"
        yield f"names the provider {name!a}; the providers are {known}"
    elif route.checks.min_logprob is not None and providers[name].kind == "anthropic":
        yield "gives no log-probabilities, which validate.min_logprob needs"


def _loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
