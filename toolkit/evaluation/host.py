"""What runs in a scorer's process: it answers rows, one JSON document a line, and knows no more.

Started as a program, ``python -I host.py``: standard library only, and MLflow where a set uses its
scorers.  The first line that comes in says what answers::

    {"program": {"name": …, "file": …, "function": …, "source": …}}
    {"judges": {NAME: {"mlflow": …, "route": …, "arguments": {…}, "number": false}}, "threads": 2,
     "gateway": "http://127.0.0.1:PORT", "token": …}

The answer is ``{"ready": true}`` or ``{"fault": …}``; after it come rows, ``{"n", "scorer", "answer",
"label", "inputs"}``, and each is answered once, in any order, with ``{"n", "value", "reason"}`` or
``{"n", "error"}``.  What a row holds is data: nothing of it is imported or run.
"""

from __future__ import annotations

import http.client
import inspect
import json
import linecache
import os
import sys
import threading
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TextIO
from urllib.parse import urlsplit

__all__ = ["main"]

_LONGEST_REASON = 400
_LONGEST_BODY = 64 << 20
_GATEWAY_S = 600.0
_NEVER_AGAIN = 400
_OF_MLFLOW = "MlflowException: Failed to invoke judge model: "
Answer = dict[str, Any]
Ask = Callable[[dict[str, Any]], Answer]


def _said(error: BaseException) -> str:
    """Return what an error says, one line that starts with its kind."""
    lines = str(error).strip().splitlines()
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text.removeprefix(_OF_MLFLOW)[:_LONGEST_REASON]


# -- a Python file of the set -----------------------------------------------------------------------


def _program(given: dict[str, Any]) -> Ask:
    module = types.ModuleType("scorer")
    # Dataclasses and pickles look their module up; tracebacks their lines.
    sys.modules["scorer"] = module
    name, text = str(given["file"]), str(given["source"])
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    exec(compile(text, name, "exec"), module.__dict__)  # noqa: S102 - what this process is for
    function = getattr(module, given["function"])

    def ask(row: dict[str, Any]) -> Answer:
        return _read(function(row["answer"], row["label"], row["inputs"]))

    return ask


def _read(value: Any) -> Answer:
    if not isinstance(value, dict):
        return {"value": value, "reason": ""}
    if "score" not in value or set(value) - {"score", "reason"}:
        raise TypeError("the scorer returned a dict with other members than score and reason")
    reason = value.get("reason") or ""
    if not isinstance(reason, str):
        raise TypeError("the scorer's reason is not text")
    return {"value": value["score"], "reason": reason[:_LONGEST_REASON]}


# -- MLflow's scorers and judges ----------------------------------------------------------------------


def _judges(given: dict[str, Any]) -> Ask:
    if given.get("gateway"):
        _open_outlet(str(given["gateway"]), str(given["token"]))
    made = {name: _judge(name, spec) for name, spec in given["judges"].items()}

    def ask(row: dict[str, Any]) -> Answer:
        judge, takes = made[row["scorer"]]
        label = row["label"]
        expected = label if isinstance(label, dict) else {"expected_response": label}
        known = {
            "inputs": row["inputs"],
            "outputs": row["answer"],
            "expectations": {} if label is None else expected,
        }
        return _feedback(judge(**{name: known[name] for name in known if name in takes}))

    return ask


def _judge(name: str, spec: dict[str, Any]) -> tuple[Callable[..., Any], set[str]]:
    from mlflow.genai import judges, scorers

    arguments = dict(spec["arguments"])
    if spec["route"]:
        arguments["model"] = f"openai:/{spec['route']}"
    if spec["mlflow"] == "make_judge":
        asked = float if spec["number"] else bool
        made = judges.make_judge(name=name, feedback_value_type=asked, **arguments)
        used = arguments["instructions"].replace(" ", "")
        takes = {
            each for each in ("inputs", "outputs", "expectations") if f"{{{{{each}}}}}" in used
        }
        return made, takes
    made = getattr(scorers, spec["mlflow"])(name=name, **arguments)
    return made, set(inspect.signature(type(made).__call__).parameters)


def _feedback(found: Any) -> Answer:
    """Return MLflow's feedback as this process answers: *yes* and *no* are truth values."""
    if not hasattr(found, "rationale"):
        return {"value": _plain(found), "reason": ""}
    if found.error is not None:
        said = getattr(found.error, "error_message", None) or found.error
        raise RuntimeError(str(said))
    if found.value is None:
        raise ValueError("the judge gave no value")
    return {"value": _plain(found.value), "reason": str(found.rationale or "")[:_LONGEST_REASON]}


def _plain(value: Any) -> Any:
    value = getattr(value, "value", value)  # a rating of MLflow's
    words = {"yes": True, "no": False}
    return words.get(value.strip().lower(), value) if isinstance(value, str) else value


# -- the way to the gateway -----------------------------------------------------------------------------


def _open_outlet(gateway: str, token: str) -> None:
    """Serve a port of this process that leads to the gateway, and nowhere else, with the run's token.

    MLflow sends again whatever was answered 429 or 5xx, ten times in minutes.  The gateway says
    which of these will not change (a budget, a provider that failed for good); here they become 400.
    """
    address = urlsplit(gateway)

    class Outlet(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            """Pass a request on, and its answer back."""
            length = int(self.headers.get("content-length") or 0)
            if self.path != "/v1/chat/completions" or not 0 < length <= _LONGEST_BODY:
                self._answer(404, b'{"error": {"message": "judges ask for chat completions"}}')
                return
            body = self.rfile.read(length)
            status, answer = _pass_on(address.netloc, self.path, body, token)
            self._answer(status, answer)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Keep still."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Outlet)
    threading.Thread(target=server.serve_forever, name="outlet", daemon=True).start()
    # The two variables by which MLflow's provider "openai" finds its server.
    os.environ["OPENAI_API_BASE"] = f"http://127.0.0.1:{server.server_address[1]}/v1"
    os.environ["OPENAI_API_KEY"] = "the-outlet-has-the-token"


def _pass_on(place: str, path: str, body: bytes, token: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(place, timeout=_GATEWAY_S)
    try:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        found = answer.read()
    except OSError as error:
        said = f"the gateway does not answer: {error}"
        return 503, json.dumps({"error": {"message": said}}).encode()
    finally:
        connection.close()
    final = answer.status >= _NEVER_AGAIN and answer.headers.get("x-should-retry") == "false"
    return (_NEVER_AGAIN if final else answer.status), found


# -- rows ---------------------------------------------------------------------------------------------


def _channels() -> tuple[TextIO, TextIO]:
    """Take the pipes away from 0 and 1, where a scorer's prints and questions would meet them."""
    come, go = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    return come, go


def main() -> None:
    """Say ready, then answer rows until there are no more."""
    come, go = _channels()
    writing = threading.Lock()

    def tell(answer: Answer) -> None:
        with writing:
            go.write(json.dumps(answer, allow_nan=False) + "\n")
            go.flush()

    given = json.loads(come.readline())
    try:
        ask = _program(given["program"]) if "program" in given else _judges(given)
    except BaseException as error:  # noqa: BLE001 - whatever a file does while it is loaded
        tell({"fault": _said(error)})
        return

    def answer(row: dict[str, Any]) -> None:
        try:
            tell({"n": row["n"], **ask(row)})
        except BaseException as error:  # noqa: BLE001 - whatever a scorer does with a row
            tell({"n": row["n"], "error": _said(error)})

    tell({"ready": True})
    threads = int(given.get("threads") or 1)
    if threads == 1:
        for line in come:
            answer(json.loads(line))
        return
    with ThreadPoolExecutor(threads) as pool:
        for line in come:
            pool.submit(answer, json.loads(line))


if __name__ == "__main__":
    main()
