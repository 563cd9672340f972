"""When no answer comes, the client says why: over real TLS, one defect at a time."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import broker.client
from broker.client import AsyncClient, probe
from broker.client.explain import svid_problem
from broker.errors import BrokerError, InvalidInput, NotReady, Reason, Unauthenticated
from tests.client.fake_broker import AGENT, TRUST_DOMAIN, FakeBroker, SvidFiles, svid_files
from tests.forge import Authority, Forged, authority, rsa_key

pytestmark = pytest.mark.usefixtures("hasty")
HOUR = timedelta(hours=1)


def connect(address: str, files: SvidFiles, server_name: str = "brokerd") -> AsyncClient:
    return broker.client.connect(
        address, server_name, certificate=files.certificate, key=files.key, bundle=files.bundle
    )


async def refusal(address: str, files: SvidFiles, server_name: str = "brokerd") -> BrokerError:
    async with connect(address, files, server_name) as client:
        with pytest.raises(BrokerError) as refused:
            await client.whoami()
    return refused.value


async def test_an_expired_svid(fake: FakeBroker, tmp_path: Path) -> None:
    files = svid_files(tmp_path, fake.agent(begins=-2 * HOUR, ends=-HOUR), fake.ca)
    error = await refusal(fake.address, files)
    assert isinstance(error, Unauthenticated)
    assert error.reason is Reason.SVID_EXPIRED
    assert f"{AGENT} expired at" in error.message
    assert error.metadata["address"] == fake.address


async def test_an_svid_that_is_not_valid_yet(fake: FakeBroker, tmp_path: Path) -> None:
    files = svid_files(tmp_path, fake.agent(begins=HOUR, ends=2 * HOUR), fake.ca)
    assert (await refusal(fake.address, files)).reason is Reason.SVID_NOT_YET_VALID


async def test_an_svid_our_own_bundle_does_not_vouch_for(fake: FakeBroker, tmp_path: Path) -> None:
    """Its authority was exchanged, and neither our bundle nor the broker's has the new one."""
    other = authority(TRUST_DOMAIN, at=datetime.now(UTC), name="another")
    files = svid_files(tmp_path, other.svid(AGENT), fake.ca)
    error = await refusal(fake.address, files)
    assert error.reason is Reason.SVID_CHAIN_INVALID
    assert "Our own SVID will be refused" in error.message


async def test_an_svid_only_the_broker_does_not_know(tmp_path: Path) -> None:
    """Our authority rotated: our bundle has both roots, the broker's only the old one."""
    fake = FakeBroker().start()
    try:
        new = authority(TRUST_DOMAIN, at=datetime.now(UTC), name="the next root")
        files = svid_files(tmp_path, new.svid(AGENT), new)
        files.bundle.write_bytes(new.pem + fake.ca.pem)
        error = await refusal(fake.address, files)
    finally:
        fake.stop()
    assert isinstance(error, Unauthenticated)
    assert error.reason is Reason.SVID_CHAIN_INVALID
    assert "closed the connection when it saw our SVID" in error.message
    assert "does not have our authority" in error.hint


async def test_a_server_of_another_trust_domain(fake: FakeBroker, tmp_path: Path) -> None:
    elsewhere: Authority = authority("elsewhere.test", at=datetime.now(UTC))
    svid: Forged = elsewhere.svid("spiffe://elsewhere.test/agent")
    error = await refusal(fake.address, svid_files(tmp_path, svid, elsewhere))
    assert isinstance(error, NotReady)
    assert error.reason is Reason.BROKER_UNTRUSTED
    assert error.metadata["trustDomain"] == "elsewhere.test"


async def test_a_server_with_another_name(fake: FakeBroker, files: SvidFiles) -> None:
    error = await refusal(fake.address, files, "broker.prod.example")
    assert error.reason is Reason.BROKER_NAME_MISMATCH
    assert "is not named broker.prod.example; its DNS names: brokerd" in error.message


class OldAuthority(Authority):
    """Its certificates do not say by which key they are signed (RFC 5280, 4.2.1.1, of which gRPC makes nothing)."""

    def svid(self, *uris: str, **defects: object) -> Forged:  # type: ignore[override]
        return super().svid(*uris, authority_key=False, **defects)  # type: ignore[arg-type]


async def test_a_broker_with_which_only_python_finds_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC takes its certificate, so that is not what is wrong."""
    made = ssl.create_default_context

    def as_of_3_13(*arguments: Any, **named: Any) -> ssl.SSLContext:
        context = made(*arguments, **named)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_of_3_13)
    root = authority(TRUST_DOMAIN, at=datetime.now(UTC))
    fake = FakeBroker(ca=OldAuthority(root.certificate, root.key, (), root.at)).start()
    try:
        async with connect(fake.address, svid_files(tmp_path, fake.agent(), fake.ca)) as client:
            found = probe.probe(client.connection.target, client.connection.source.current())
            assert found.stage is probe.Stage.ACCEPTED, found.detail
            assert (await client.whoami()).spiffe_id == AGENT
    finally:
        fake.stop()


async def test_nobody_listening(files: SvidFiles) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    error = await refusal(address, files)
    assert error.reason is Reason.BROKER_UNREACHABLE
    assert error.message == f"Nothing answers at {address}: Connection refused."


@pytest.fixture
def plain_server() -> Iterator[str]:
    """Something that listens and is not TLS, as a metrics port."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


async def test_what_listens_is_no_tls_server(plain_server: str, files: SvidFiles) -> None:
    error = await refusal(plain_server, files)
    assert error.reason is Reason.BROKER_UNREACHABLE
    assert "does not speak TLS" in error.message


async def test_what_listens_and_says_nothing(files: SvidFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is stopped: its machine still takes connections for it."""
    monkeypatch.setattr(probe.probe, "__defaults__", (0.2,))
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = await refusal(f"127.0.0.1:{server.getsockname()[1]}", files)
    assert error.reason is Reason.BROKER_UNREACHABLE
    assert "takes connections and does not answer: no answer within 0.2 s" in error.message
    assert "stopped or overloaded" in error.hint


async def test_a_missing_file(fake: FakeBroker, tmp_path: Path) -> None:
    files = SvidFiles(tmp_path / "no.pem", tmp_path / "no.key", tmp_path / "no.bundle")
    error = await refusal(fake.address, files)
    assert error.reason is Reason.SVID_MISSING
    assert error.metadata["file"] == str(files.certificate)
    assert fake.calls == []


async def test_a_replaced_file_is_taken_up(fake: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CI renews its files in place: an expired SVID is replaced, and the same client goes on."""
    files = svid_files(tmp_path, fake.agent(begins=-2 * HOUR, ends=-HOUR), fake.ca)
    async with connect(fake.address, files) as client:
        with pytest.raises(Unauthenticated):
            await client.whoami()
        files.write(fake.agent(), fake.ca)
        for _ in range(50):
            try:
                identity = await client.whoami()
                break
            except Unauthenticated as error:
                assert error.reason is Reason.SVID_EXPIRED
        assert identity.owner == "Ada"


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("", "brokerd"),
        ("brokerd", "brokerd"),
        ("host:0", "brokerd"),
        ("host:65536", "brokerd"),
        ("http://host:1", "brokerd"),
        ("host:1/x", "brokerd"),
        ("unix:/run/x", "brokerd"),
        ("host:1", ""),
        ("host:1", "spiffe://example.org/brokerd"),
        ("host:１", "brokerd"),
    ],
)
def test_what_is_no_address_is_refused(address: str, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        broker.client.connect(address, name, "unix:///nowhere")
    assert refused.value.reason is Reason.CONFIG_INVALID


@pytest.mark.parametrize(
    ("address", "shown"),
    [("broker.internal:8443", "broker.internal:8443"), ("[::1]:443", "[::1]:443"), ("dns:///b:1", "b:1")],
)
def test_an_address_is_understood(address: str, shown: str) -> None:
    client = broker.client.connect(address, workload_api="unix:///nowhere")
    assert str(client.connection.target) == shown


def test_the_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_ADDRESS", "b:1")
    monkeypatch.setenv("BROKER_SERVER_NAME", "broker.internal")
    monkeypatch.setenv("SPIFFE_ENDPOINT_SOCKET", "/run/agent.sock")
    connection = broker.client.connect().connection
    assert (str(connection.target), connection.target.server_name) == ("b:1", "broker.internal")
    assert connection.source.endpoint == "unix:///run/agent.sock"


def test_without_a_workload_api_there_is_no_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIFFE_ENDPOINT_SOCKET", raising=False)
    with pytest.raises(Unauthenticated) as refused:
        broker.client.connect("b:1")
    assert refused.value.reason is Reason.SVID_MISSING
    assert "SPIFFE_ENDPOINT_SOCKET" in refused.value.hint


def test_two_of_three_files_are_refused() -> None:
    with pytest.raises(InvalidInput, match="2 of 3"):
        broker.client.connect("b:1", certificate=Path("a"), key=Path("b"))


def test_a_key_of_another_certificate_is_told_before_anything_is_tried(fake: FakeBroker, tmp_path: Path) -> None:
    """Renewed by half: TLS would fail on this side, and look like a refusal."""
    files = svid_files(tmp_path, fake.agent(), fake.ca)
    files.key.write_bytes(fake.agent().key_pem)
    source = broker.client.connect(
        fake.address, certificate=files.certificate, key=files.key, bundle=files.bundle
    ).connection.source

    with pytest.raises(Unauthenticated, match="does not belong to the key") as refused:
        source.current()
    assert refused.value.reason is Reason.SVID_MALFORMED
    assert refused.value.hint

    files.key.write_bytes(b"no key")
    with pytest.raises(Unauthenticated, match="not an unencrypted private key"):
        source.current()


async def test_a_federated_authority_cannot_pose_as_the_broker(tmp_path: Path) -> None:
    """The right DNS name and even the broker's SPIFFE ID, from an authority that the broker itself trusts."""
    partner = authority("partner.test", at=datetime.now(UTC))
    impostor = FakeBroker(server_ca=partner).start()
    try:
        files = svid_files(tmp_path, impostor.agent(), impostor.ca)
        error = await refusal(impostor.address, files)
    finally:
        impostor.stop()
    assert isinstance(error, NotReady)
    assert error.reason is Reason.BROKER_UNTRUSTED
    assert "is not of our trust domain" in error.message
    assert impostor.calls == []


@pytest.mark.parametrize("bits", [1024, 2048])
async def test_an_svid_with_a_weak_key_is_told_what_to_do(fake: FakeBroker, tmp_path: Path, bits: int) -> None:
    files = svid_files(tmp_path, fake.agent(key=rsa_key(bits)), fake.ca)
    async with connect(fake.address, files) as client:
        material = client.connection.source.current()
        problem = svid_problem(material, datetime.now(UTC))
    if bits >= 2048:
        assert problem is None
        return
    assert problem is not None
    assert problem.reason is Reason.SVID_KEY_WEAK
    assert "RSA with 1024 bits" in problem.message
    assert "P-256" in problem.hint
