"""Whether a credential works is asked as its holder would, and only a refusal by the upstream makes it dead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from broker.connectors.aws_use import list_bucket
from broker.connectors.postgresql_use import log_in
from broker.errors import Reason, UpstreamFailed
from broker.lease.credential import AwsSession, DatabaseLogin
from broker.ports.connectors import Revoked, Use
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import aws_connector, can_log_in, vault_harness
from tests.connectors.support import HOLDER, Ledger, assert_tells_no_secret, make_scope, new_attempt
from tests.patience import PATIENCE

SESSION = AwsSession("ASIAEXAMPLE", Secret("hidden-key"), Secret("hidden-token"), "eu-central-1", "arn:x", "{}")
LOGIN = DatabaseLogin("postgresql", "127.0.0.1", 1, "orders", "login-1", Secret("hidden-password"))


async def test_a_login_works_until_it_is_revoked(openbao_server: ConfiguredOpenBao, dead_address: str) -> None:
    harness = vault_harness(openbao_server, dead_address)
    connector, ledger = harness.connector(), Ledger()
    async with harness.stack:
        ends = harness.clock.now() + timedelta(minutes=5)
        ledger.handle = connector.prepare(harness.scope, new_attempt(), HOLDER, ends)
        issued = await ledger.issued(connector.issue(ledger.handle, harness.scope, ends, ledger.checkpoint))
        assert await connector.use(issued.credential, harness.scope) is Use.WORKS
        # Another's password is a refusal too, and the same one: PostgreSQL does not say which.
        assert isinstance(issued.credential, DatabaseLogin)
        wrong = replace(issued.credential, password=Secret("hidden"))
        assert await connector.use(wrong, harness.scope) is Use.REFUSED
        # Refused, but not the login: that says nothing about it.
        with pytest.raises(UpstreamFailed):
            log_in("orders-db", replace(issued.credential, database="not-there"), PATIENCE)
        assert isinstance(await connector.revoke(ledger.handle, ledger.context(expires_at=ends)), Revoked)
        assert await connector.use(issued.credential, harness.scope) is Use.REFUSED
        assert not can_log_in(issued.credential)


@pytest.mark.parametrize(
    ("login", "told"),
    [(LOGIN, "OperationalError"), (SESSION, "is no login of a database")],
    ids=["nobody listens", "another kind"],
)
def test_a_database_that_does_not_answer_has_refused_nothing(login: DatabaseLogin | AwsSession, told: str) -> None:
    with pytest.raises(UpstreamFailed, match=told) as caught:
        log_in("orders-db", login, 2.0)
    assert caught.value.reason is Reason.CREDENTIAL_USE_UNKNOWN
    assert_tells_no_secret(caught.value, "hidden-password", "hidden-key", "hidden-token")


class _S3(BaseHTTPRequestHandler):
    """Answers every call with the status and the code that its path's first part says: /403-AccessDenied."""

    def do_GET(self) -> None:
        assert "hidden" not in self.path + str(self.headers).replace("hidden-token", "")
        status, _, code = self.path.split("/")[1].split("?")[0].partition("-")
        name = "ListBucketResult" if status == "200" else "Error"
        body = f"<{name}><Code>{code}</Code><Message>no</Message></{name}>".encode()
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self) -> None:
        """The SDK asks so where a bucket is, once it was redirected."""
        self.do_GET() if self.path.startswith("/302") else self.send_error(501)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def s3() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _S3)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("answer", "use"),
    [
        ("200-", Use.WORKS),
        ("403-AccessDenied", Use.REFUSED),
        ("400-ExpiredToken", Use.REFUSED),
        ("403-InvalidAccessKeyId", Use.REFUSED),
        # These say nothing about the session.
        ("404-NoSuchBucket", None),
        ("503-SlowDown", None),
        ("500-InternalError", None),
        ("403-SignatureDoesNotMatch", None),
        ("403-RequestTimeTooSkewed", None),
        ("301-PermanentRedirect", None),
        ("302-", None),
    ],
)
def test_what_s3_answers(s3: str, answer: str, use: Use | None) -> None:
    try:
        told = list_bucket("aws", SESSION, "bucket", endpoint_url=f"{s3}/{answer}", timeout=PATIENCE)
    except UpstreamFailed as unknown:
        assert use is None
        assert answer.partition("-")[2] in str(unknown)
        assert_tells_no_secret(unknown, "hidden-key", "hidden-token")
    else:
        assert told is use


async def test_without_a_bucket_a_session_cannot_be_tried(dead_address: str) -> None:
    connector = aws_connector(dead_address)
    with pytest.raises(UpstreamFailed, match="canary_bucket") as caught:
        await connector.use(SESSION, make_scope({}))
    assert caught.value.reason is Reason.CREDENTIAL_USE_UNKNOWN
    await connector.close()


def test_an_s3_that_cannot_be_reached_has_refused_nothing(dead_address: str) -> None:
    with pytest.raises(UpstreamFailed, match="EndpointConnectionError") as caught:
        list_bucket("aws", SESSION, "bucket", endpoint_url=dead_address, timeout=PATIENCE)
    assert_tells_no_secret(caught.value, "hidden-key", "hidden-token")
