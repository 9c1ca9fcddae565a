"""A real HTTP service on loopback, plain or with TLS, that keeps what it was asked."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

DOCUMENT = """
openapi: "3.0.3"
info: {title: Customers, version: "1"}
servers: [{url: "http://evil.example/"}]
paths:
  /customers:
    get:
      operationId: findCustomer
      summary: Finds a customer by address.
      parameters:
        - {name: email, in: query, required: true, schema: {type: string, maxLength: 60}}
        - {name: tags, in: query, schema: {type: array, items: {type: string}}}
        - {name: x-trace, in: header, schema: {type: string}}
        - {name: authorization, in: header, schema: {type: string}}
    post:
      operationId: createCustomer
      requestBody:
        required: true
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Customer"}
  /customers/{id}:
    parameters:
      - {$ref: "#/components/parameters/Id"}
    get: {operationId: readCustomer}
    delete: {operationId: deleteCustomer}
  /go:
    get:
      operationId: follow
      parameters:
        - {name: to, in: query, required: true, schema: {type: string}}
        - {name: status, in: query, schema: {type: integer}}
    post:
      operationId: followPost
      parameters:
        - {name: to, in: query, required: true, schema: {type: string}}
        - {name: status, in: query, schema: {type: integer}}
      requestBody:
        required: true
        content: {application/json: {schema: {type: object, properties: {note: {type: string}}}}}
  /answer:
    get:
      operationId: answer
      parameters:
        - {name: kind, in: query, required: true, schema: {type: string}}
    post:
      operationId: change
      parameters:
        - {name: kind, in: query, required: true, schema: {type: string}}
  /upload:
    post:
      operationId: upload
      requestBody: {required: true, content: {text/csv: {schema: {type: string}}}}
components:
  parameters:
    Id: {name: id, in: path, required: true, schema: {type: string}}
  schemas:
    Customer:
      type: object
      required: [email]
      properties:
        id: {type: integer, readOnly: true}
        email: {type: string}
        nick: {type: string, nullable: true}
        friends: {type: array, items: {$ref: "#/components/schemas/Customer"}}
"""

OPERATIONS = """
    operations:
      findCustomer: {effect: read}
      createCustomer: {effect: write}
      readCustomer: {effect: read}
      deleteCustomer: {effect: write}
      follow: {effect: read}
      followPost: {effect: write}
      answer: {effect: read}
      change: {effect: write}
"""


@dataclass
class Asked:
    """One request as the service saw it."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: Any


@dataclass
class Service:
    """A running service.

    Attributes:
        port: Where it listens on 127.0.0.1.
        asked: What it was asked, in order.
    """

    port: int
    asked: list[Asked] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def anything(self, request: Request) -> Response:
        raw = await request.body()
        self.asked.append(
            Asked(
                request.method,
                request.scope["raw_path"].decode(),
                request.query_params.multi_items(),
                dict(request.headers),
                None if not raw else await request.json(),
            )
        )
        path = request.url.path
        if path.endswith("/round"):
            return RedirectResponse("/round")
        if path.endswith("/go"):
            status = int(request.query_params.get("status", "302"))
            return RedirectResponse(request.query_params["to"], status_code=status)
        if path.endswith("/answer"):
            return await self.answer(request, request.query_params["kind"])
        return JSONResponse({"method": request.method, "path": path})

    async def answer(self, request: Request, kind: str) -> Response:
        if kind == "echo":
            return JSONResponse({"headers": dict(request.headers)})
        if kind == "text":
            return PlainTextResponse(
                "grüße".encode("latin-1"), media_type="text/plain; charset=latin-1"
            )
        if kind == "bytes":
            return Response(b"\x00\x01\x02", media_type="application/octet-stream")
        if kind == "large":
            return PlainTextResponse("x" * 5000)
        if kind == "nothing":
            return Response(status_code=204)
        if kind == "packed":
            return Response(b"\x1f\x8b", headers={"content-encoding": "gzip"})
        if kind == "broken":
            return Response(b"{", media_type="application/json")
        if kind == "busy":
            return JSONResponse({"detail": "later"}, 429, headers={"retry-after": "7"})
        if kind == "leak":
            return PlainTextResponse(request.headers.get("authorization", ""), 500)
        if kind == "slow":
            await asyncio.sleep(3)
        return JSONResponse(None)


@contextmanager
def http_service(**tls: str) -> Iterator[Service]:
    """Serve on a free port of 127.0.0.1 until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    made = Service(listener.getsockname()[1])
    methods = ["GET", "POST", "PUT", "DELETE"]
    app = Starlette(routes=[Route("/{rest:path}", made.anything, methods=methods)])
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", timeout_graceful_shutdown=0, **tls
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate that vouches for ``name`` only; return its file and its key's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    try:
        vouched: x509.GeneralName = x509.IPAddress(ip_address(name))
    except ValueError:
        vouched = x509.DNSName(name)
    usage = x509.KeyUsage(
        digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False,
        encipher_only=False, decipher_only=False,
    )  # fmt: skip
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([vouched]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, private = folder / "ca.pem", folder / "key.pem"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return pem, private
