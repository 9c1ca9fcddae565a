"""A gateway of the size of a test: the wire of ``toolkit.client.wire`` on a unix socket, no policy.

It answers what the test has scripted and records what it was asked, so that the magics can be
driven without the real gateway's rooms (``test_magics_gateway.py`` drives them with it).
"""

from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from toolkit.client import wire
from toolkit.errors import ToolkitError, UsageError
from toolkit.values import call_key, digest_json


class WireGateway:
    """Answers on ``socket`` until ``close``.

    Attributes:
        requests: (path, body) as they came.
        answers: Model texts, first come first served; then the prompt is echoed.
        errors: Errors by call name, sent instead of an answer.
        decisions: Decisions by call name.
        ui: Address of the MLflow pages.
        cases: (id, inputs) that ``cases/next`` hands out.
        verdict: What ``evaluations/score`` answers.
        tool_calls: By prompt: tool calls of the model's answer.
    """

    def __init__(self, socket: Path) -> None:
        self.socket = str(socket)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self.errors: dict[str, ToolkitError] = {}
        self.decisions: dict[str, dict[str, Any]] = {}
        self.ui: str | None = "http://127.0.0.1:5001"
        self.cases: list[tuple[str, dict[str, Any]]] = []
        self.answered: dict[str, dict[str, Any]] = {}
        self.verdict: dict[str, Any] = {}
        self.cost: str | None = "0.00012"
        self._begun: dict[str, dict[str, Any]] = {}
        self._rows: list[dict[str, Any]] = []
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                size = int(self.headers.get("content-length") or 0)
                body = json.loads(self.rfile.read(size) or b"{}")
                try:
                    reply, status = gateway.answer(self.path, body), 200
                except ToolkitError as error:
                    reply, status = {"error": error.to_json()}, 403
                data = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

            def address_string(self) -> str:
                return "unix"

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self._server = Server(self.socket, Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[dict[str, Any]]:
        """Return the bodies that came to one path."""
        return [body for at, body in self.requests if at == path]

    def answer(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.requests.append((path, body))
        if path in (wire.SESSIONS, wire.STATUS):
            return self._hello()
        if path == wire.CALLS:
            return {"calls": [row for row in self._rows if row["seq"] > body.get("after_seq", 0)]}
        if path == wire.MODEL:
            return self._finished(body, self._model(body), self._key(body))
        if path == wire.RESULT:
            return self._finished(body, {"state": "ok", "answer": None}, self._key(body))
        if path == wire.BEGIN:
            return self._begin(body)
        if path == wire.FINISH:
            begun = self._begun[body["key"]]
            outcome = {"state": body["state"], "answer": body.get("answer")}
            return self._finished(begun, {**outcome, "error": body.get("error")}, body["key"])
        return self._evaluation(path, body)

    def _evaluation(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        if path == wire.NEXT_CASE:
            return self._next()
        if path == wire.ANSWER_CASE:
            self.answered[body["case_id"]] = body
            return {"case_id": body["case_id"], "next": self._next()}
        if path.endswith("/evaluations/start"):
            trials = body["trials"] or 1
            count = len(self.cases) // trials
            return {"evaluation_run_id": f"{body['set']}/1", "cases": count, "trials": trials}
        if path.endswith("/evaluations/score"):
            return self.verdict
        raise UsageError(f"no such path: {path}")

    def _next(self) -> dict[str, Any]:
        if not self.cases:
            return {"case_id": None}
        case_id, inputs = self.cases.pop(0)
        return {"case_id": case_id, "inputs": inputs}

    def _hello(self) -> dict[str, Any]:
        return {
            "run_id": "session-0001",
            "kind": "session",
            "environment": "sandbox",
            "user": "ana",
            "team": None,
            "job": None,
            "notebook": "notebooks/orders.ipynb",
            "token": "t" * 40,
            "ui_url": self.ui,
            "unshipped": 3,
            "totals": {
                "calls": len(self._rows), "denied": 0, "errors": 0, "by_kind": {},
                "input_tokens": 7, "output_tokens": 5, "cost_usd": "0.00012",
                "unknown_cost_calls": 1,
            },
        }  # fmt: skip

    def _key(self, body: dict[str, Any]) -> str:
        digest = digest_json(body["arguments"])
        return call_key(body["parent"], body["kind"], body["name"], digest, body["occurrence"])

    def _begin(self, body: dict[str, Any]) -> dict[str, Any]:
        key = self._key(body)
        self._begun[key] = body
        if body["name"] in self.errors:
            return self._finished(body, self._refusal(body["name"]), key)
        return {**self._reply(body, key), "outcome": None}

    def _refusal(self, name: str) -> dict[str, Any]:
        return {"state": "denied", "answer": None, "error": self.errors[name].to_json()}

    def _model(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["name"] in self.errors:
            return self._refusal(body["name"])
        prompt = body["arguments"]["messages"][-1]["content"]
        answer = self.answers.pop(0) if self.answers else {"text": f"echo: {prompt}"}
        return {
            "state": "ok",
            "answer": answer,
            "usage": {"input_tokens": 7, "output_tokens": 5},
            "cost_usd": self.cost,
            "provider": "local",
            "model": "smollm2",
        }

    def _reply(self, body: dict[str, Any], key: str) -> dict[str, Any]:
        decision = self.decisions.get(body["name"], {"verdict": "allow"})
        return {
            "call_id": f"session-0001/{key}/0",
            "key": key,
            "generation": 0,
            "decision": decision,
            "latency_s": 0.1234,
            "replayed": False,
            "trace_url": f"{self.ui}/#/traces/{key[:8]}" if self.ui else None,
        }

    def _finished(self, body: dict[str, Any], outcome: dict[str, Any], key: str) -> dict[str, Any]:
        reply = {**self._reply(body, key), "outcome": outcome}
        self._rows.append(
            {
                "seq": len(self._rows) + 1,
                "at": "2026-11-21T05:16:01.000000Z",
                "kind": body["kind"],
                "name": body["name"],
                **{k: outcome.get(k) for k in ("state", "model", "usage", "cost_usd")},
                **{k: reply[k] for k in ("decision", "latency_s", "trace_url")},
            }
        )
        return reply
