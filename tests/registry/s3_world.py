"""A bucket for tests: moto's server, in this process, over real HTTP."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
from loopback_world import serving
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from toolkit.registry.storage import Bucket

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",  # moto takes any
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


class Quiet(WSGIRequestHandler):
    disable_nagle_algorithm = True  # it answers in two parts: 40 ms each time otherwise

    def log_request(self, *args: object) -> None:
        """A line for every request helps nobody."""


@contextmanager
def s3_server() -> Iterator[str]:
    """Serve S3 and yield its URL.

    One request at a time: moto looks at a condition and then writes, without a lock between, so
    two threads of it would let two conditional writes pass where S3 lets one.
    """
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, app, threaded=False, request_handler=Quiet)
    url = f"http://127.0.0.1:{server.server_port}"
    before = {name: os.environ.get(name) for name in (*SETTINGS, "AWS_ENDPOINT_URL")}
    os.environ.update(SETTINGS, AWS_ENDPOINT_URL=url)
    with serving(server):
        try:
            yield url
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value


def new_address(url: str) -> str:
    """Make a bucket and return the address of an empty registry in it."""
    name = f"registry-{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=url).create_bucket(Bucket=name)
    return f"s3://{name}/team"


def raw(address: str) -> Bucket:
    """The objects themselves, as somebody with access to the bucket sees them."""
    return Bucket(address)
