"""The sources in force: ``registry/data.yaml`` read again when it changes."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

from toolkit.errors import NotFound
from toolkit.settings import Resolver, system_resolver
from toolkit.sources.caps import Caps
from toolkit.sources.catalog import DataCatalog, FilesSettings, SourceSettings, SqlSettings
from toolkit.sources.types import Source

__all__ = ["Sources"]


class Sources:
    """Every source of a workspace, opened when it is first asked.

    A broken edit of the file fails closed: reads raise its faults until it is mended.

    Args:
        root: The workspace; relative paths start there.
        path: ``registry/data.yaml``.
        environ: Holds the credentials that the file names.
        resolver: Finds addresses of HTTP services.
    """

    def __init__(
        self,
        root: Path,
        path: Path,
        environ: Mapping[str, str] | None = None,
        *,
        resolver: Resolver = system_resolver,
    ) -> None:
        self._resolver = resolver
        self._root = root
        self._path = path
        self._environ = os.environ if environ is None else environ
        self._lock = threading.Lock()
        self._stamp: tuple[int, int, int] | None = None
        self._catalog: DataCatalog | None = None
        self._open: dict[str, Source] = {}

    def catalog(self) -> DataCatalog:
        """Return the catalog in force.

        Raises:
            NotFound, InvalidFile: There is none, or it has faults.
        """
        with self._lock:
            return self._current()

    def caps(self, name: str) -> Caps:
        """Return what one read of a source may give.

        Raises:
            NotFound, InvalidFile: See :meth:`catalog`, or there is no such source.
        """
        return self.catalog().source(name).caps(name)

    def source(self, name: str) -> Source:
        """Return a source.

        Raises:
            NotFound, InvalidFile: See :meth:`catalog`, or there is no such source.
            ConfigurationError: A credential is not in the environment.
        """
        with self._lock:
            settings = self._current().source(name)
            if name not in self._open:
                self._open[name] = self._opened(name, settings)
            return self._open[name]

    def close(self) -> None:
        """Give back every connection."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        for source in self._open.values():
            source.close()
        self._open.clear()

    def _current(self) -> DataCatalog:
        try:
            status = self._path.stat()
        except OSError:
            self._stamp = self._catalog = None
            self._close()
            raise NotFound(
                "this workspace has no data sources: registry/data.yaml is not there",
                where="registry/data.yaml",
                next_step="write it; docs/data.md has an example",
            ) from None
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if self._catalog is None or stamp != self._stamp:
            self._catalog = None
            catalog = DataCatalog.load(self._path)
            self._close()
            self._catalog, self._stamp = catalog, stamp
        return self._catalog

    def _opened(self, name: str, settings: SourceSettings) -> Source:
        """Open a source; what it needs loads with the first one (0.7 s), not with the gateway."""
        if isinstance(settings, SqlSettings):
            from toolkit.sources.sql import SqlSource

            return SqlSource(name, settings, self._root, self._environ)
        if isinstance(settings, FilesSettings):
            from toolkit.sources.files import FileSource

            return FileSource(name, settings, self._root, self._environ)
        from toolkit.sources.web import HttpSource

        return HttpSource(name, settings, self._environ, self._resolver)
