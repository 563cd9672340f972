"""A private, real MinIO: one server on loopback, a bucket of reports, and a user of the broker's own.

Its binary is built from its Go module (``make minio``) and kept in the user's cache; nobody builds it in
passing. Loopback only, no TLS. What is put into it as its root user is what an operator puts there
(docs/connectors/minio-sts.md); the broker never has the root user's password.
"""

from __future__ import annotations

import io
import json
import os
import signal
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from broker.dev.files import private_directory, secret_file
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.process import ServerProcess
from broker.dev.server import DevServer
from broker.errors import Reason, UpstreamFailed
from broker.secret import Secret

NOT_BUILT = "MinIO is not built here; `make minio` does it (Go; once, some minutes)."
REGION = "us-east-1"
ROOT_USER, BROKER_USER = "root-user", "jit-broker"
BUCKET = "orders-reports"
# Of two days, so that one can be in the scope of a session and the other out of it.
REPORTS: Mapping[str, bytes] = {
    f"daily/2026-01-{day}/{name}.csv": f"{name},{day}\n".encode() for day in (30, 31) for name in ("orders", "refunds")
}
_START_SECONDS = 60.0
_REQUEST_SECONDS = 30


def built() -> Path | None:
    """The binary, if ``integration/minio/binaries/build`` has made it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    binary = cache / "jit-broker" / "minio" / "current" / "minio"
    return binary if os.access(binary, os.X_OK) else None


@dataclass(frozen=True, slots=True)
class MinioFacts:
    """Where the server is, its root user, and the broker's own."""

    endpoint: str
    root_password: Secret
    broker_secret: Secret

    def client(self, user: str = ROOT_USER, secret: Secret | None = None, token: Secret | None = None) -> Any:
        """A boto3 client of S3, by default as the root user; boto3's clients have no common type."""
        # Nothing from the environment: no proxy before loopback, no profile, no stray key.
        session = boto3.session.Session(
            aws_access_key_id=user,
            aws_secret_access_key=(self.root_password if secret is None else secret).reveal(),
            aws_session_token=None if token is None else token.reveal(),
            region_name=REGION,
        )
        config = Config(
            proxies={},
            retries={"total_max_attempts": 1},
            connect_timeout=5,
            read_timeout=_REQUEST_SECONDS,
            signature_version="s3v4",  # of presigned URLs, too
            s3={"addressing_style": "path"},
        )
        return session.client("s3", endpoint_url=self.endpoint, config=config)


class MinioServer(DevServer[MinioFacts]):
    """``binary`` with data, passwords and log under ``directory`` (kept between starts)."""

    what = "The development MinIO"

    def __init__(self, binary: Path, directory: Path) -> None:
        self._binary = binary
        directory = private_directory(directory)
        self._root_password = Secret(secret_file(directory / "root.password"))
        self._broker_secret = Secret(secret_file(directory / "broker.secret"))
        process = ServerProcess(
            "minio",
            directory,
            stop_signal=signal.SIGTERM,
            environment={
                "HOME": str(directory),
                "MINIO_ROOT_USER": ROOT_USER,
                "MINIO_ROOT_PASSWORD": self._root_password.reveal(),
                "MINIO_BROWSER": "off",
                "MINIO_UPDATE": "off",
                "MINIO_CI_CD": "1",  # its data may lie on the disk of the system
            },
        )
        super().__init__(directory, process)

    def start(self) -> MinioFacts:
        """Start it; returns when bucket, reports and user are there. Raises :class:`UpstreamFailed`."""
        self._process.stop_leftover()
        port = free_port(self._directory / "port")
        data = private_directory(self._directory / "data")
        self._process.start([self._binary, "server", "--address", f"{LOOPBACK}:{port}", data], cwd=self._directory)
        facts = MinioFacts(f"http://{LOOPBACK}:{port}", self._root_password, self._broker_secret)
        self._process.wait_until(lambda: _is_ready(facts), within=_START_SECONDS)
        put_reports(facts)
        make_user(facts, BROKER_USER, self._broker_secret, reading(BUCKET))
        self._facts = facts
        return facts


def put_reports(facts: MinioFacts) -> None:
    """The bucket and its reports; those that are there are the same."""
    client = facts.client()
    if BUCKET not in [each["Name"] for each in client.list_buckets()["Buckets"]]:
        client.create_bucket(Bucket=BUCKET)
    for key, body in REPORTS.items():
        client.put_object(Bucket=BUCKET, Key=key, Body=body)


def reading(*buckets: str) -> list[dict[str, Any]]:
    """The widest that a template may give: reading and writing objects of ``buckets``, and listing them."""
    arns = [f"arn:aws:s3:::{bucket}" for bucket in buckets]
    return [
        {
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
            "Resource": [*arns, *(f"{arn}/*" for arn in arns)],
        }
    ]


def make_user(facts: MinioFacts, name: str, secret: Secret, statements: Sequence[Mapping[str, Any]]) -> None:
    """A user with a policy of its own, both by one import; what is there already is replaced.

    By an import, because ``add-user`` takes its body encrypted in a form of MinIO's own.
    """
    policy = {"Version": "2012-10-17", "Statement": list(statements)}
    assets = {
        "policies.json": {name: policy},
        "users.json": {name: {"secretKey": secret.reveal(), "status": "enabled"}},
        "user_mappings.json": {name: {"version": 1, "policy": name}},
    }
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for file, content in assets.items():
            archive.writestr(f"iam-assets/{file}", json.dumps(content))
    call_as_root(facts, "PUT", "import-iam", body=packed.getvalue())


def call_as_root(
    facts: MinioFacts, method: str, name: str, query: Mapping[str, str] | None = None, body: bytes = b""
) -> requests.Response:
    """A call of the admin API as the root user. Raises :class:`UpstreamFailed` unless it did what it should."""
    request = AWSRequest(method, f"{facts.endpoint}/minio/admin/v3/{name}", params=dict(query or {}), data=body)
    S3SigV4Auth(Credentials(ROOT_USER, facts.root_password.reveal()), "s3", REGION).add_auth(request)
    signed = request.prepare()
    with requests.Session() as session:
        session.trust_env = False
        answer = session.request(
            method, signed.url, headers=dict(signed.headers), data=body, timeout=_REQUEST_SECONDS, allow_redirects=False
        )
    if not answer.ok:
        raise UpstreamFailed(
            Reason.UPSTREAM_REFUSED,
            f"The development MinIO answered HTTP {answer.status_code} to {name}.",
            metadata={"name": name},
        )
    return answer


def _is_ready(facts: MinioFacts) -> bool:
    """Whether it answers, and has read its users: before that it says 503."""
    with requests.Session() as session:
        session.trust_env = False
        try:
            return session.get(f"{facts.endpoint}/minio/health/cluster", timeout=_REQUEST_SECONDS).ok
        except requests.RequestException:
            return False
