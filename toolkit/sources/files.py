"""Files and objects through fsspec, never above the folder or bucket of their source."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, cast

import fsspec
import pyarrow as pa

from toolkit.errors import ConfigurationError, InfrastructureError, NotFound, UsageError
from toolkit.sources.caps import Gauge
from toolkit.sources.catalog import FilesSettings
from toolkit.sources.columnar import Table, column_of
from toolkit.sources.expectations import check_promises
from toolkit.sources.formats import checked_path, decode, format_of
from toolkit.sources.types import About, Ask, Check, Plan, Reading
from toolkit.values import Labels

__all__ = ["FileSource", "given", "options_of"]

_MOST_LISTED = 10_000


class FileSource:
    """A folder or bucket of ``registry/data.yaml``.

    Args:
        name: Of the source.
        settings: Its entry.
        root: Folder that a relative one starts at.
        environ: Holds what ``options_env`` names.
    """

    def __init__(
        self, name: str, settings: FilesSettings, root: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.settings = settings
        url = settings.url
        local = "://" not in url or url.startswith("file:")
        self._local = local
        try:
            options = {**settings.options, **options_of(name, settings.options_env, environ)}
            where = str(root / url) if "://" not in url else url
            self._files, self._base = fsspec.core.url_to_fs(where, **options)
        except (ImportError, ValueError) as error:
            raise ConfigurationError(
                f"{url.partition(':')[0]!r} cannot be opened: {type(error).__name__}",
                where=f"registry/data.yaml: sources.{name}.url",
                next_step="install the file system's package (s3fs for s3://) in the gateway",
            ) from None

    def close(self) -> None:
        """Nothing is kept open between reads."""

    def plan(self, ask: Ask) -> Plan:
        """Say which file is read; its columns are known when it is open."""
        if ask.operation == "tables":
            return Plan((), (), write=False, fetch=lambda _: self._listing())
        if ask.operation != "read":
            raise UsageError(
                f"{self.name!r} holds files; it takes no SQL", next_step='ask .read("path")'
            )
        path = checked_path(ask.path)
        format_ = format_of(path, ask.format, self.settings.formats)
        columns = tuple(sorted(set(ask.columns)))
        return Plan(
            (path,), columns, write=False, fetch=lambda check: self._read(path, format_, ask, check)
        )

    def _read(self, path: str, format_: str, ask: Ask, check: Check) -> Reading:
        gauge = Gauge(self.settings.caps(self.name))
        with self._open(path) as file:
            table, content = decode(file, format_, ask.columns, gauge, path)
        return given(self.name, self.settings, table, content, check)

    def _open(self, path: str) -> IO[bytes]:
        full = f"{self._base.rstrip('/')}/{path}"
        try:
            if self._local:
                return self._open_local(full)
            return cast("IO[bytes]", self._files.open(full, "rb"))
        except FileNotFoundError:
            raise NotFound(f"{self.name!r} has no file {path!a}") from None
        except (IsADirectoryError, PermissionError) as error:
            raise UsageError(f"{path!a} cannot be read: {type(error).__name__}") from None
        except Exception as error:  # whatever a store's client raises; its message may hold keys
            raise InfrastructureError(
                f"the files of {self.name!r} cannot be reached ({type(error).__name__})",
                where=f"registry/data.yaml: sources.{self.name}",
            ) from None

    def _open_local(self, full: str) -> IO[bytes]:
        """Open a regular file below the base; links may not lead out of it."""
        base, real = Path(os.path.realpath(self._base)), Path(os.path.realpath(full))
        if not real.is_relative_to(base):
            raise PermissionError(full)
        if not stat.S_ISREG(real.stat().st_mode):
            raise IsADirectoryError(full)
        file = cast("IO[bytes]", self._files.open(str(real), "rb"))
        # What was opened has to be what was looked at, not what it was exchanged for since.
        opened, seen = os.fstat(file.fileno()), real.lstat()
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino):
            file.close()
            raise PermissionError(full)
        return file

    def _listing(self) -> Reading:
        try:
            found = list(itertools.islice(self._walk(), _MOST_LISTED + 1))
        except Exception as error:
            raise InfrastructureError(
                f"the files of {self.name!r} cannot be listed ({type(error).__name__})"
            ) from None
        warnings: tuple[str, ...] = ()
        if len(found) > _MOST_LISTED:
            warnings = (f"only the first {_MOST_LISTED:,} files of {self.name} are listed",)
        return listed(sorted(found[:_MOST_LISTED]), warnings)

    def _walk(self) -> Iterator[tuple[str, int]]:
        base = self._base.rstrip("/")
        for folder, _, files in self._files.walk(base, detail=True):
            for info in files.values():
                name = f"{folder.rstrip('/')}/{str(info['name']).rpartition('/')[2]}"
                yield name.removeprefix(base).lstrip("/"), int(info.get("size") or 0)


def listed(found: Sequence[tuple[str, int]], warnings: tuple[str, ...]) -> Reading:
    """Return names and sizes as a table."""
    arrays = [
        pa.array([name for name, _ in found], pa.string()),
        column_of([size for _, size in found]).cast(pa.int64()),
    ]
    batch = pa.RecordBatch.from_arrays(arrays, names=["table", "bytes"])
    about = tuple(About((name,), group=name) for name, _ in found)
    return Reading(Table(batch.schema, [batch]), warnings=warnings, about=about)


def options_of(
    name: str, options_env: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, Any]:
    """Return options whose values are in the environment.

    Raises:
        ConfigurationError: A variable is not set.
    """
    if missing := sorted(
        variable for variable in options_env.values() if not environ.get(variable)
    ):
        raise ConfigurationError(
            f"the environment variable {', '.join(missing)} is not set in the gateway",
            where=f"registry/data.yaml: sources.{name}",
            next_step="set it where the gateway is started, and start the gateway again",
        )
    return {option: environ[variable] for option, variable in options_env.items()}


def given(
    name: str,
    settings: Any,
    table: Table,
    content: Literal["table", "text", "bytes"],
    check: Check,
) -> Reading:
    """Let policy see the columns, then check promises and say the labels."""
    columns = tuple(table.schema.names) if content == "table" else ()
    warnings = check(tuple(sorted(columns)))
    own: Labels = settings.source_labels()
    each = tuple(own | settings.column_labels(column) for column in columns)
    labels = own
    for column_labels in each:
        labels |= column_labels
    warnings += check_promises(name, settings.expect, table, columns or (None,))
    return Reading(table, labels, each, content=content, warnings=warnings)
