"""An S3 on loopback, to be a DVC remote: moto's server, with keys that it asks for, and that can be stopped and started.

moto answers as S3 does but asks nobody who they are. Who may read and who may write is decided here, by the access key of the
request; signatures are not checked.
"""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

READER, WRITER, SECRET = "AKIAREADER", "AKIAWRITER", "planted-s3-secret-0123456789"
REFUSED = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def keys(name: str) -> dict[str, str]:
    return {"AWS_ACCESS_KEY_ID": name, "AWS_SECRET_ACCESS_KEY": SECRET}


class Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


class Storage:
    """`requests` is every request: method, path, access key. `writes_left`: how many objects it takes before it goes down."""

    def __init__(self) -> None:
        self.backend = DomainDispatcherApplication(create_backend_app)
        self.server: BaseWSGIServer | None = None
        self.port = 0
        self.requests: list[tuple[str, str, str]] = []
        self.writes_left: int | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        if self.server is None:
            self.server = make_server("127.0.0.1", self.port, self, threaded=True, request_handler=Quiet)
            self.port = self.server.server_port
            threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        server, self.server = self.server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def empty(self, bucket: str) -> None:
        for name in self.objects(bucket):
            self.remove(bucket, name)
        self.requests, self.writes_left = [], None

    def copy(self, source: str, target: str) -> None:
        for name in self.objects(source):
            self._client().copy_object(Bucket=target, Key=name, CopySource={"Bucket": source, "Key": name})

    def buckets(self) -> list[str]:
        return [row["Name"] for row in self._client().list_buckets()["Buckets"]]

    def _client(self) -> Any:
        return boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=WRITER, aws_secret_access_key=SECRET)

    def make(self, bucket: str) -> None:
        self._client().create_bucket(Bucket=bucket)

    def objects(self, bucket: str) -> dict[str, int]:
        """Name -> size."""
        pages = self._client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {row["Key"]: row["Size"] for page in pages for row in page.get("Contents", ())}

    def read(self, bucket: str, name: str) -> bytes:
        return self._client().get_object(Bucket=bucket, Key=name)["Body"].read()

    def remove(self, bucket: str, name: str) -> None:
        self._client().delete_object(Bucket=bucket, Key=name)

    def __call__(self, environ: dict[str, Any], start_response: Callable) -> Iterable[bytes]:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        found = re.search(r"Credential=([^/]+)/", environ.get("HTTP_AUTHORIZATION", ""))
        key = found[1] if found else ""
        self.requests.append((method, path, key))
        if key != WRITER and not (key == READER and method in ("GET", "HEAD")):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(REFUSED)))])
            return [REFUSED]
        if method == "PUT" and self.writes_left is not None:
            self.writes_left -= 1
            if self.writes_left < 0:  # gone in the middle of an upload: no answer at all
                threading.Thread(target=self.stop, daemon=True).start()
                raise ConnectionAbortedError("planted")
        return self.backend(environ, start_response)
