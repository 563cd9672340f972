"""The exchange beneath every call to Vault: over TLS to whom it was told, once, and nowhere else."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from broker.connectors.vault_http import Known, VaultAdapter, VaultFailure, open_pool
from broker.secret import Secret
from tests.forge import authority

TOKEN = Secret("s.canary-5up3r-s3cr3t")


class Server(ThreadingHTTPServer):
    """Says yes, tells a cookie, and keeps what it was asked."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status, self.location = 200, ""
        self.scheme = "http"
        if context is not None:
            self.scheme = "https"
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def address(self, host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up at the certificate is what is looked at here."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append((self.command, self.path, dict(self.headers.items()), body))
        said = b'{"data":{}}'
        self.send_response(self.server.status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Set-Cookie", "session=mine; Path=/")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    do_GET = do_POST = do_PUT = do_LIST = answer  # noqa: N815 - names of the library

    def log_message(self, *_: object) -> None:
        """Nothing of it."""


def run(server: Server) -> Iterator[Server]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def plain() -> Iterator[Server]:
    yield from run(Server())


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    made = authority("example.org", at=datetime.now(UTC).replace(microsecond=0))
    leaf = made.svid("spiffe://example.org/vault", dns=("localhost",))
    for name, data in (("ca", made.pem), ("cert", leaf.pem + leaf.chain_pem), ("key", leaf.key_pem)):
        (tmp_path / name).write_bytes(data)
    return tmp_path / "ca"


@pytest.fixture
def secure(ca: Path) -> Iterator[Server]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca.with_name("cert"), ca.with_name("key"))
    yield from run(Server(context))


def adapter(address: str, ca_file: Path | None = None, token: Secret | None = TOKEN) -> VaultAdapter:
    return VaultAdapter(open_pool(2, str(ca_file) if ca_file else None), address, token, timeout=5.0)


def failure(told: VaultAdapter, method: str = "get", path: str = "/v1/a") -> VaultFailure:
    with pytest.raises(VaultFailure) as caught:
        told.request(method, path)
    assert TOKEN.reveal() not in str(caught.value)
    return caught.value


def test_it_believes_the_authority_that_it_was_told(secure: Server, ca: Path) -> None:
    assert adapter(secure.address(), ca).get("/v1/a") == {"data": {}}


@pytest.mark.parametrize("wrong", ["authority", "name"])
def test_a_certificate_of_anybody_else_is_sent_nothing(secure: Server, ca: Path, wrong: str) -> None:
    told = adapter(secure.address(), None) if wrong == "authority" else adapter(secure.address("127.0.0.1"), ca)
    found = failure(told, "post")
    assert (found.known, found.what) == (Known.NOT_SENT, "its certificate could not be verified")
    assert secure.asked == []


def test_what_is_asked_goes_out_as_it_was_said(plain: Server) -> None:
    told = VaultAdapter(open_pool(2, None), plain.address() + "/behind/", TOKEN, timeout=5.0, namespace="team/one")
    told.request("post", "/v1/a", json={"name": "größer", "count": 1})
    told.request("list", "/v1/b/", params={"list": "true", "after": "a b&c"})
    told.put("/v1/c", json=None)
    (first, second, third) = plain.asked
    assert first[:2] == ("POST", "/behind/v1/a")
    assert json.loads(first[3]) == {"name": "größer", "count": 1}
    assert first[2]["Content-Type"] == "application/json"
    assert (first[2]["X-Vault-Token"], first[2]["X-Vault-Namespace"]) == (TOKEN.reveal(), "team/one")
    assert first[2]["X-Vault-Request"] == "true"
    assert second[:2] == ("LIST", "/behind/v1/b?list=true&after=a+b%26c")
    assert third[0] == "PUT"


def test_no_cookie_comes_back_and_no_token_that_was_not_given(plain: Server) -> None:
    told = adapter(plain.address(), token=None)
    told.get("/v1/a")
    told.get("/v1/b")
    for _, _, headers, _ in plain.asked:
        assert not {"cookie", "x-vault-token", "authorization"} & {name.lower() for name in headers}


def test_a_redirect_is_told_and_not_followed(plain: Server) -> None:
    plain.status, plain.location = 307, plain.address() + "/elsewhere"
    found = failure(adapter(plain.address()), "post")
    assert "redirects are not followed" in found.what
    assert [path for _, path, _, _ in plain.asked] == ["/v1/a"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_it_asks_once(plain: Server, status: int) -> None:
    plain.status = status
    failure(adapter(plain.address()))
    assert len(plain.asked) == 1


def test_the_environment_names_no_proxy(plain: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert adapter(plain.address()).get("/v1/a") == {"data": {}}


def test_nobody_there_is_known_to_have_been_sent_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
    found = failure(adapter(f"http://127.0.0.1:{port}"))
    assert found.known is Known.NOT_SENT
    assert "no connection could be made" in found.what


@pytest.mark.parametrize("address", ["ftp://localhost", "http://[::1", "localhost:8200"])
def test_an_address_that_is_none_is_known_to_have_been_sent_nothing(address: str) -> None:
    found = failure(adapter(address))
    assert found.known is Known.NOT_SENT
    assert "could not be formed" in found.what


def test_what_hangs_up_after_it_was_asked_may_have_done_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        found = failure(adapter(f"http://127.0.0.1:{listener.getsockname()[1]}"), "post")
        thread.join()
    assert found.known is Known.UNKNOWN
    assert "broke off" in found.what
