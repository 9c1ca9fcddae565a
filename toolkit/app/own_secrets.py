"""The secrets that a gateway itself holds: what its screen looks for before all else."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from toolkit.privacy import KnownSecrets, is_secret_name

__all__ = ["OwnSecrets"]

_LOOK_AGAIN_S = 0.5
_SHORTEST = 8
_NAMING = re.compile(r"^(?P<indent>\s*(?:-\s+)?).*?\b(?:\w+_env|env_from)\b[\"']?\s*:(?P<rest>.*)$")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass
class OwnSecrets:
    """What may never be written, by where it comes from.

    * Variables of the environment whose names tell (``…_KEY``, ``…_TOKEN``, ``…PASSWORD`` …).
    * Variables that the registry's YAML files name as credentials (``password_env: ORDERS_LOGIN``,
      ``env_from`` of a server); the files are looked at again when they change.
    * Passwords inside of URLs, in any variable and in the settings.

    Values of fewer than eight characters are left out: they are in ordinary words.

    Attributes:
        environ: The process's environment, which does not change.
        registry: The registry folder.
        urls: URLs of the settings (``database_url`` …).
    """

    environ: Mapping[str, str]
    registry: Path
    urls: Iterable[str] = ()
    _names: frozenset[str] | None = None
    _known: KnownSecrets = field(default_factory=KnownSecrets)
    _looked: float = 0.0

    def __call__(self) -> KnownSecrets:
        """Return the secrets as of now; the same object until something changed."""
        now = time.monotonic()
        if self._names is not None and now - self._looked < _LOOK_AGAIN_S:
            return self._known
        self._looked = now
        names = frozenset(self._named())
        if names != self._names:
            self._names = names
            self._known = KnownSecrets(self._values(names))
        return self._known

    def variables(self) -> frozenset[str]:
        """Return the names of the variables that hold secrets, as of now."""
        telling = {name for name in self.environ if _tells(name)}
        urls = {name for name, value in self.environ.items() if any(_passwords(value))}
        return frozenset(telling | urls | set(self._named()))

    def _values(self, named: frozenset[str]) -> Iterator[tuple[str, str]]:
        for name, given in self.environ.items():
            value = given.strip()
            if (name in named or _tells(name)) and len(value) >= _SHORTEST:
                yield name, value
            for password in _passwords(value):
                yield f"password in {name}", password
        for url in self.urls:
            for password in _passwords(url):
                yield "password in the settings", password

    def _named(self) -> Iterator[str]:
        """Yield the variables that the registry's files name; broken files are read as text, too."""
        files = [*self.registry.glob("*.yaml"), *self.registry.glob("policies/*/*.yaml")]
        for path in sorted(files):
            try:
                text = path.read_text("utf-8", "replace")
            except OSError:
                continue
            if "_env" in text or "env_from" in text:
                yield from (word for word in _credentials(text) if word in self.environ)


def _tells(name: str) -> bool:
    # In a program's text a key may be one of a table; in an environment it opens something.
    # And PWD, elsewhere short for a password, is there the folder that a shell is in.
    return name != "PWD" and (bool(is_secret_name(name)) or name.upper().endswith("_KEY"))


def _credentials(text: str) -> Iterator[str]:
    inside: int | None = None
    for line in text.splitlines():
        if (found := _NAMING.match(line)) is not None:
            yield from _WORD.findall(found["rest"])
            # ``options_env:`` and ``env_from:`` may go on over more lines.
            inside = len(found["indent"]) if not found["rest"].strip() else None
        elif inside is not None and line.strip():
            listed = line.lstrip().startswith("- ")
            if len(line) - len(line.lstrip()) <= inside - listed:
                inside = None
            else:
                yield from _WORD.findall(line if listed else line.partition(":")[2])


def _passwords(value: str) -> Iterator[str]:
    if "://" not in value or "@" not in value:
        return
    try:
        password = urlsplit(value).password
    except ValueError:
        return
    for each in {password or "", unquote(password or "")}:
        if len(each) >= _SHORTEST:
            yield each
