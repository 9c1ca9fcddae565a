"""``POST /events/NAME``: signed events over HTTP that start jobs.

Answers: 202 queued (the same delivery again gives the same run), 200 not for this trigger, 400 no
JSON, 401 not genuine or no such trigger (which of the two is not told), 409 the delivery's id came
before with other content, 413 too large, 422 the event lacks a value, 423 paused, 503 the database
does not answer (send it again).
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from toolkit.errors import ConfigurationError, Conflict, EngineError, NotFound, UsageError
from toolkit.scheduling.signatures import verified_delivery
from toolkit.scheduling.triggers import Trigger
from toolkit.values import Clock, SystemClock

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from toolkit.scheduling.engine import Engine

__all__ = ["Intake", "serving"]

MAX_BODY = 256 * 1024
_REFUSED = (401, {"error": "the event is not genuine, is too old, or has no trigger"})
_PREFIX = {"http": "x-toolkit", "mlflow": "x-mlflow"}
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

Answer = tuple[int, dict[str, Any]]


class Intake:
    """Judges events.

    Args:
        engine: Where runs are queued.
        secrets: Returns the value of an environment variable.
        clock: What time it is.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        secrets: Callable[[str], str | None] = os.environ.get,
        clock: Clock | None = None,
    ) -> None:
        self._engine = engine
        self._secrets = secrets
        self._clock = clock or SystemClock()

    def receive(self, name: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Judge one event and queue its run.

        Args:
            name: The trigger's.
            headers: By lower-case name.
            body: As it came.

        Returns:
            The status code and the JSON to answer with.
        """
        try:
            info = self._engine.get_trigger(name)
            return self._judge(info.trigger, info.paused, headers, body)
        except NotFound:
            return _REFUSED
        except Conflict as error:
            return 409, {"error": error.message}
        except UsageError as error:
            return 422, {"error": error.message}
        except EngineError:
            return 503, {"error": "the queue does not answer; send the event again"}

    def _judge(
        self,
        trigger: Trigger,
        paused: bool,
        headers: Mapping[str, str],
        body: bytes,  # noqa: FBT001
    ) -> Answer:
        if trigger.kind not in _PREFIX:
            return _REFUSED
        secret = self._secrets(trigger.secret_env or "") or ""
        now_s = self._clock.now_us() / 1e6
        delivery = verified_delivery(secret, _PREFIX[trigger.kind], headers, body, now_s)
        if delivery is None:
            return _REFUSED
        if paused:
            return 423, {"error": "the trigger is paused"}
        try:
            event = json.loads(body)
        except (ValueError, RecursionError):
            return 400, {"error": "the body is not JSON"}
        if trigger.kind == "mlflow" and not _is_meant(trigger, event):
            return 200, {"ignored": "another event or model"}
        return 202, {"run_id": self._engine.fire(trigger, delivery, event)}


def _is_meant(trigger: Trigger, event: Any) -> bool:
    """Whether an MLflow webhook's payload (``entity``, ``action``, ``data``) is for a trigger."""
    if not isinstance(event, dict) or not isinstance(event.get("data"), dict):
        return False
    name = f"{event.get('entity')}.{event.get('action')}"
    return name == trigger.event and trigger.model in (None, event["data"].get("name"))


def serving(intake: Intake, listen: str) -> AbstractContextManager[str]:
    """Answer requests in a thread as long as the block lasts.

    Args:
        intake: Judges them.
        listen: ``127.0.0.1:8790``; loopback only, TLS and the open network are a proxy's work.

    Returns:
        A context manager that gives the address, ``http://127.0.0.1:8790``.

    Raises:
        ConfigurationError: The address is not on this machine's loopback, or is taken.
    """
    host, _, port = listen.rpartition(":")
    if host.strip("[]") not in _LOOPBACK or not port.isdigit():
        raise ConfigurationError(
            f"{listen!a} is not an address of this machine's loopback",
            where="--listen",
            next_step="write 127.0.0.1:8790, and put a proxy with TLS in front of it",
        )
    return _Serving(intake, host.strip("[]"), int(port))


class _Serving:
    def __init__(self, intake: Intake, host: str, port: int) -> None:
        self._intake = intake
        self._host, self._port = host, port

    def __enter__(self) -> str:
        import uvicorn
        from starlette.applications import Starlette
        from starlette.routing import Route

        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            self._socket = socket.create_server((self._host, self._port), family=family)
        except OSError as error:
            raise ConfigurationError(
                f"events cannot be received: {error.strerror}",
                where=f"{self._host}:{self._port}",
                next_step="choose another --listen address",
            ) from error
        app = Starlette(routes=[Route("/events/{name}", self._answer, methods=["POST"])])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=5
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, args=([self._socket],), name="intake", daemon=True
        )
        self._thread.start()
        host, port = self._socket.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(5)
        self._socket.close()

    async def _answer(self, request: Request) -> Response:
        from starlette.concurrency import run_in_threadpool
        from starlette.responses import JSONResponse

        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BODY:
                return JSONResponse({"error": f"more than {MAX_BODY} bytes"}, 413)
        name = request.path_params["name"]
        status, answer = await run_in_threadpool(
            self._intake.receive, name, dict(request.headers), body
        )
        return JSONResponse(answer, status, {"Retry-After": "5"} if status == 503 else None)
