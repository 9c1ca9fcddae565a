from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as Path_

from toolkit.providers import Catalog


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def registry() -> Path:
    """The registry folder of this repository."""
    return Path(__file__).parents[2] / "registry"


@dataclass
class Upstream:
    """A real HTTP server on loopback that answers as it is told and remembers what it heard.

    Attributes:
        url: Its address.
        replies: ``(status, headers, body, delay_s)``; the last one is used again and again.
        heard: ``(path, headers, JSON body)`` of every request.
    """

    url: str = ""
    replies: list[tuple[int, dict[str, str], Any, float]] = field(default_factory=list)
    heard: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def says(self, body: Any, status: int = 200, delay_s: float = 0.0, **headers: str) -> None:
        """Add a reply; header names are written with underscores."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.replies.append((status, named, body, delay_s))

    async def answer(self, request: Request) -> Response:
        self.heard.append((request.url.path, dict(request.headers), await request.json()))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        status, headers, body, delay_s = reply
        await anyio.sleep(delay_s)
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return Response(content, status, headers, "application/json")


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    """One upstream server, stopped at the end."""
    told = Upstream()
    app = Starlette(routes=[Path_("/{path:path}", told.answer, methods=["GET", "POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    told.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    yield told
    server.should_exit = server.force_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def write_catalog(tmp_path: Path) -> Callable[..., Catalog]:
    """Write models.yaml with one provider ``p`` and one route ``r``, and load it."""

    def write(provider: str, route: str = "", **files: str) -> Catalog:
        path = tmp_path / "models.yaml"
        path.write_text(
            f"providers:\n  p: {{{provider}}}\n"
            f"routes:\n  r: {{provider: p, model: m1, max_tokens: 64, {route}}}\n"
            "default_route: r\n"
        )
        for name, text in files.items():
            (tmp_path / f"{name}.yaml").write_text(text)
        return Catalog.load(path)

    return write
