"""A double of MinIO: its STS and the three admin calls of the connector, on loopback, in a thread. It is not MinIO.

It answers in MinIO's words and keeps which sessions there are. It checks no signature and enforces no policy, so it
proves what is sent and what is made of the answers; the real one, built from its Go module, is ``integration/minio``'s.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from broker.dev.minio import BROKER_USER, BUCKET, reading

STS_ANSWER = """<?xml version="1.0" encoding="UTF-8"?>
<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser><Arn></Arn>
<AssumeRoleId></AssumeRoleId></AssumedRoleUser><Credentials><AccessKeyId>{key}</AccessKeyId>
<SecretAccessKey>session-secret-{key}</SecretAccessKey><Expiration>{ends}</Expiration>
<SessionToken>session-token-{key}</SessionToken></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
STS_ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type></Type><Code>{code}</Code>
<Message>canary-5up3r-s3cr3t</Message></Error><RequestId>1</RequestId></ErrorResponse>"""


S3_GONE = """<?xml version="1.0" encoding="UTF-8"?><Error><Code>InvalidAccessKeyId</Code></Error>"""
_POLICY = {"Version": "2012-10-17", "Statement": reading(BUCKET)}


@dataclass
class MinioDouble:
    """What it knows and what it was asked."""

    address: str = ""
    sessions: dict[str, str] = field(default_factory=dict)  # revoke types, by access key
    asked: list[dict[str, str]] = field(default_factory=list)  # forms of AssumeRole
    seen: list[str] = field(default_factory=list)  # METHOD name
    account: dict[str, object] = field(default_factory=lambda: {"AccountName": BROKER_USER, "Policy": _POLICY})
    forgets: bool = False  # since its last start it has read no session from its disks
    # Instead of doing anything: (status, body), by the name of the call.
    instead: dict[str, tuple[int, str]] = field(default_factory=dict)
    lives: timedelta | None = None  # how long its sessions are; None: as was asked

    def reset(self) -> None:
        """As if it had just started."""
        self.__dict__.update(MinioDouble(self.address).__dict__)

    def answer(self, method: str, name: str, query: dict[str, str], by: str = "") -> tuple[int, str]:
        """One call: the last part of its path, its query or form, and whose access key signed it."""
        self.seen.append(f"{method} {name}")
        if name in self.instead:
            return self.instead[name]
        match name:
            case "orders.csv":
                # A session that is there reads the report, whatever its policy says.
                return (200, "orders") if by in self.sessions else (403, S3_GONE)
            case "":
                return 200, self._assume(query)
            case "builtin":
                self._revoke(query)
                return 204, ""
            case "info-access-key":
                self.forgets = False
                return (
                    (200, "{}") if query["accessKey"] in self.sessions else (403, json.dumps({"Code": "AccessDenied"}))
                )
            case "accountinfo":
                return 200, json.dumps(self.account)
        return 404, "{}"

    def _assume(self, form: dict[str, str]) -> str:
        self.asked.append(form)
        key = secrets.token_hex(10).upper()
        self.sessions[key] = form["TokenRevokeType"]
        ends = datetime.now(UTC) + (self.lives or timedelta(seconds=int(form["DurationSeconds"])))
        return STS_ANSWER.format(key=key, ends=f"{ends:%Y-%m-%dT%H:%M:%SZ}")

    def _revoke(self, query: dict[str, str]) -> None:
        if not self.forgets:
            gone = [key for key, kind in self.sessions.items() if kind == query["tokenRevokeType"]]
            for key in gone:
                del self.sessions[key]


@contextmanager
def minio_double() -> Iterator[MinioDouble]:
    """It, running."""
    double = MinioDouble()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except ConnectionError:
                self.close_connection = True

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def _answer(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            given = {name: values[0] for name, values in parse_qs(parts.query or body).items()}
            by = self.headers.get("Authorization", "").partition("Credential=")[2].partition("/")[0]
            status, text = double.answer(self.command, parts.path.rpartition("/")[2], given, by)
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    double.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
