"""The door's TLS, proven over real connections with grpc.aio: who gets in, who is stopped where, and rotation."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from grpc._cython import cygrpc

from broker.api.tls import SERVER_OPTIONS, ServerTls, TlsMaterial, peer_from_auth_context
from broker.api.tls_files import BundleFile, IdentityFiles
from broker.api.tls_material import ServerIdentity, compose
from broker.errors import InvalidInput, Reason, Unauthenticated
from broker.identity.bundle import Bundles, TrustBundle
from broker.identity.peer_cache import PeerCache
from broker.identity.spiffe_id import SpiffeId
from tests.forge import Forged, authority, der_san_uris
from tests.patience import PATIENCE

STARTED = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
HOME = authority("example.org", at=STARTED)
NEXT = authority("example.org", at=STARTED, name="next CA of example.org")
PARTNER = authority("partner.org", at=STARTED)
ID = "spiffe://example.org/agent/one"
AGENT = HOME.svid(ID)


def _server_svid() -> Forged:
    return HOME.svid("spiffe://example.org/broker", dns=["localhost"])


class Shifted:
    """The present, and ``by`` more."""

    def __init__(self) -> None:
        self.by = timedelta()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.by


class Door(grpc.GenericRpcHandler):
    """A server that only says who came: the TLS room's whole behaviour and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self.key = folder / "broker.pem", folder / "broker.key"
        self.follows = False
        self.bundles = {name: folder / f"{name}.pem" for name in ("example.org", "partner.org")}
        self.serve_as(_server_svid())
        self.trust("example.org", HOME.pem)
        self.trust("partner.org", PARTNER.pem)
        self.clock = Shifted()
        self.tls, self.follows = self.make(), True
        self.reached = 0
        self.cache = PeerCache()
        self.port = 0

    def make(self) -> ServerTls:
        identity = IdentityFiles(self.certificate, self.key, "example.org", self.clock)
        bundles = {name: BundleFile(name, path) for name, path in self.bundles.items()}
        return ServerTls(TlsMaterial("example.org", identity, bundles), self.clock)

    def serve_as(self, server: Forged) -> None:
        self.put(self.certificate, server.pem + server.chain_pem)
        self.put(self.key, server.key_pem)

    def trust(self, trust_domain: str, pem: bytes) -> None:
        self.put(self.bundles[trust_domain], pem)

    def put(self, path: Path, data: bytes) -> None:
        """Write whole, beside, and rename into place; then what the daemon does each second."""
        beside = path.with_suffix(".new")
        beside.write_bytes(data)
        beside.chmod(0o600)
        beside.rename(path)
        if self.follows:
            self.tls.refresh()

    async def _who(self, _request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        self.reached += 1
        try:
            peer = peer_from_auth_context(context.auth_context(), self.tls.bundles, self.cache, self.clock.now())
        except Unauthenticated as refused:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, refused.reason.value)
        return str(peer.spiffe_id).encode()

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self._who)

    def channel(self, client: Forged | None, *, roots: bytes = HOME.pem) -> grpc.aio.Channel:
        pair = (client.key_pem, client.pem + client.chain_pem) if client else (None, None)
        # A pool of its own: every channel is a handshake.
        options = [("grpc.use_local_subchannel_pool", 1)]
        return grpc.aio.secure_channel(
            f"localhost:{self.port}", grpc.ssl_channel_credentials(roots, *pair), options=options
        )

    async def ask(self, client: Forged | None) -> str:
        """Who the door says ``client`` is, over a connection of its own."""
        async with self.channel(client) as channel:
            return await _ask(channel)

    async def served_certificate(self, folder: Path, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
        """The DER the door shows in a fresh handshake at exactly this TLS version."""
        context = ssl.create_default_context(cadata=HOME.pem.decode())
        (folder / "client.pem").write_bytes(AGENT.key_pem + AGENT.pem)
        context.load_cert_chain(folder / "client.pem")
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("ALL:@SECLEVEL=0")  # lets OpenSSL offer old versions at all
        context.minimum_version = context.maximum_version = version
        _, writer = await asyncio.open_connection("localhost", self.port, ssl=context)
        try:
            shown: ssl.SSLObject = writer.get_extra_info("ssl_object")
            return shown.getpeercert(binary_form=True) or b""
        finally:
            writer.close()


async def _ask(channel: grpc.aio.Channel, message: bytes = b"") -> str:
    answer: bytes = await channel.unary_unary("/test.Door/Who")(message, timeout=PATIENCE)
    return answer.decode()


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    made = Door(tmp_path)
    server = grpc.aio.server(options=SERVER_OPTIONS)
    server.add_generic_rpc_handlers((made,))
    made.port = server.add_secure_port("localhost:0", made.tls.credentials())
    await server.start()
    yield made
    await server.stop(None)


async def test_good_svid_is_told_its_own_id(door: Door) -> None:
    assert await door.ask(AGENT) == ID
    assert await door.ask(HOME.intermediate("one").intermediate("two").svid(ID)) == ID
    assert await door.ask(PARTNER.svid("spiffe://partner.org/agent")) == "spiffe://partner.org/agent"


@pytest.mark.parametrize(
    ("client", "reason"),
    [
        pytest.param(PARTNER.svid(ID), Reason.SVID_CHAIN_INVALID, id="our id from the partner's CA"),
        pytest.param(
            HOME.intermediate("theirs", "spiffe://partner.org").svid(ID), Reason.SVID_CHAIN_INVALID, id="foreign sub-CA"
        ),
        pytest.param(HOME.svid(ID, "spiffe://example.org/admin"), Reason.SVID_URI_COUNT, id="two ids"),
        pytest.param(HOME.svid(), Reason.SVID_URI_COUNT, id="no names"),
        pytest.param(HOME.svid(dns=["example.org"]), Reason.SVID_URI_COUNT, id="only a DNS name"),
        pytest.param(HOME.svid(ID, ca=True), Reason.SVID_IS_CA, id="CA:TRUE"),
        pytest.param(HOME.svid(ID, usage=None), Reason.SVID_KEY_USAGE, id="no key usage"),
        pytest.param(HOME.svid(ID, usage_critical=False), Reason.SVID_KEY_USAGE, id="key usage not critical"),
        pytest.param(
            HOME.svid(ID, usage=("digital_signature", "key_cert_sign")), Reason.SVID_KEY_USAGE, id="keyCertSign"
        ),
        pytest.param(HOME.svid(ID, san_critical=False), Reason.SVID_MALFORMED, id="names not critical"),
        pytest.param(
            HOME.svid("spiffe://elsewhere.org/a"), Reason.SVID_TRUST_DOMAIN_UNKNOWN, id="unknown trust domain"
        ),
        *(
            pytest.param(HOME.svid(uri), Reason.SVID_ID_NOT_CANONICAL, id=uri)
            for uri in (
                "spiffe://example.org/agent/../admin",
                "spiffe://Example.org/agent/one",
                "spiffe://example.org/agent/one/",
                "spiffe://example.org/agent/%6fne",
                "spiffe://user@example.org/agent/one",
                "spiffe://example.org:443/agent/one",
                "spiffe://example.org/agent/one?q",
                "spiffe://example.org/",
                "https://example.org/agent/one",
            )
        ),
        pytest.param(
            HOME.svid(raw_san=der_san_uris("spiffe://example.org/ö".encode())),
            Reason.SVID_ID_NOT_CANONICAL,
            id="non-ASCII",
        ),
    ],
)
async def test_what_tls_lets_in_our_rules_stop_with_their_reason(door: Door, client: Forged, reason: Reason) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.ask(client)

    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    assert door.reached == 1


@pytest.mark.parametrize(
    "client",
    [
        pytest.param(None, id="no certificate"),
        pytest.param(authority("example.org", at=STARTED).svid(ID), id="unknown CA"),
        pytest.param(HOME.svid(ID, begins=-2 * HOUR, ends=-HOUR), id="expired"),
        pytest.param(HOME.svid(ID, begins=HOUR, ends=2 * HOUR), id="not yet valid"),
    ],
)
async def test_what_tls_itself_refuses_never_reaches_a_handler(door: Door, client: Forged | None) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.ask(client)

    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert door.reached == 0


async def test_connection_outlives_its_certificate_but_its_requests_do_not(door: Door) -> None:
    async with door.channel(AGENT) as channel:
        assert await _ask(channel) == ID
        door.clock.by = HOUR + timedelta(minutes=1)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _ask(channel)

    assert refused.value.details() == Reason.SVID_EXPIRED
    assert door.reached == 2


async def test_new_certificate_is_shown_at_the_next_handshake(door: Door, tmp_path: Path) -> None:
    before, renewed = await door.served_certificate(tmp_path), _server_svid()

    door.serve_as(renewed)

    assert await door.served_certificate(tmp_path) == renewed.der != before
    assert door.tls.identity.not_after == renewed.certificate.not_valid_after_utc
    assert await door.ask(AGENT) == ID


async def test_bad_pair_keeps_the_last_good_and_is_told(door: Door, tmp_path: Path) -> None:
    before = await door.served_certificate(tmp_path)
    renewed = _server_svid()

    door.put(door.certificate, renewed.pem)  # its key is not there yet
    assert await door.served_certificate(tmp_path) == before
    (problem,) = door.tls.problems
    assert problem.reason is Reason.CONFIG_INVALID
    assert "does not belong to the key" in problem.message

    door.put(door.key, renewed.key_pem)
    assert await door.served_certificate(tmp_path) == renewed.der
    assert door.tls.problems == ()


async def test_grpc_is_given_new_material_once_and_otherwise_told_that_nothing_changed(door: Door) -> None:
    (initial, one), (_, other) = door.tls.delivery(), door.tls.delivery()
    assert one() is None

    door.serve_as(_server_svid())
    renewed = one()

    assert renewed is not None and renewed is not initial
    assert one() is None
    assert other() is renewed  # each port has its own memory of what it was given
    assert other() is None


async def test_files_that_vanish_change_nothing_but_are_told(door: Door, tmp_path: Path) -> None:
    before = await door.served_certificate(tmp_path)
    for path in (door.certificate, door.key, *door.bundles.values()):
        path.unlink()
    door.tls.refresh()

    assert await door.served_certificate(tmp_path) == before
    assert await door.ask(AGENT) == ID
    assert len(door.tls.problems) == 3  # own pair and two bundles


async def test_added_root_is_trusted_at_the_next_handshake(door: Door) -> None:
    newcomer = NEXT.svid(ID)
    with pytest.raises(grpc.aio.AioRpcError):
        await door.ask(newcomer)

    door.trust("example.org", HOME.pem + NEXT.pem)

    assert await door.ask(newcomer) == ID
    assert await door.ask(AGENT) == ID


async def test_removed_root_ends_open_connections_too(door: Door) -> None:
    async with door.channel(AGENT) as channel:
        assert await _ask(channel) == ID
        door.trust("example.org", NEXT.pem)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _ask(channel)
    with pytest.raises(grpc.aio.AioRpcError) as at_handshake:
        await door.ask(AGENT)

    assert refused.value.details() == Reason.SVID_CHAIN_INVALID
    assert at_handshake.value.code() is grpc.StatusCode.UNAVAILABLE
    assert door.reached == 2


async def test_one_bad_bundle_does_not_hold_up_another(door: Door) -> None:
    door.trust("partner.org", b"")
    door.trust("example.org", HOME.pem + NEXT.pem)

    assert await door.ask(NEXT.svid(ID)) == ID
    assert await door.ask(PARTNER.svid("spiffe://partner.org/agent")) == "spiffe://partner.org/agent"
    (problem,) = door.tls.problems
    assert problem.metadata["trustDomain"] == "partner.org"


async def test_partner_who_puts_our_root_into_his_bundle_changes_nothing_but_his_alarm(door: Door) -> None:
    ours = authority("example.org", at=STARTED, uris=())  # names no trust domain, so it could be anybody's
    door.trust("example.org", HOME.pem + ours.pem)
    version = door.tls.bundles.version
    door.trust("partner.org", PARTNER.pem + ours.pem)

    assert door.tls.bundles.version == version
    (problem,) = door.tls.problems
    assert "shares a root key" in problem.message
    assert problem.metadata == {"trustDomain": "partner.org", "other": "example.org"}
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await door.ask(ours.svid("spiffe://partner.org/agent"))
    assert refused.value.details() == Reason.SVID_CHAIN_INVALID

    door.trust("example.org", NEXT.pem)  # our own rotation is not held up by it

    assert door.tls.bundles["example.org"].roots[0].certificate == NEXT.certificate
    assert door.tls.problems == ()  # the root is the partner's alone now
    door.trust("example.org", NEXT.pem + ours.pem)  # and if it comes back, ours goes first again
    assert len(door.tls.bundles["example.org"].roots) == 2
    assert "partner.org" not in door.tls.bundles  # what it had before has that root too
    door.trust("partner.org", PARTNER.pem)
    assert set(door.tls.bundles) == {"example.org", "partner.org"}
    assert door.tls.problems == ()


def _bundle(name: str, *roots: Forged) -> TrustBundle:
    return TrustBundle.from_pem(name, b"".join(root.pem for root in roots))


OURS, THEIRS, OTHERS = (_bundle(f"{name}.org", authority(f"{name}.org")) for name in ("ours", "theirs", "others"))
_SHARED = authority("shared", uris=())


@pytest.mark.parametrize(
    ("offered", "before", "stands", "yields"),
    [
        pytest.param([OURS, THEIRS], [], [OURS, THEIRS], set(), id="nothing shared"),
        pytest.param(
            [_bundle("theirs.org", _SHARED), _bundle("ours.org", _SHARED)],
            [],
            ["ours.org"],
            {"theirs.org"},
            id="own first",
        ),
        pytest.param(
            [OURS, _bundle("theirs.org", _SHARED), _bundle("others.org", _SHARED)],
            [OURS, _bundle("theirs.org", _SHARED), OTHERS],
            ["ours.org", "theirs.org", "others.org"],
            {"others.org"},
            id="the newcomer keeps what it had",
        ),
    ],
)
def test_which_of_two_bundles_yields(
    offered: list[TrustBundle], before: list[TrustBundle], stands: list[TrustBundle | str], yields: set[str]
) -> None:
    known = {bundle.trust_domain: bundle for bundle in before}
    offer = {bundle.trust_domain: bundle for bundle in offered}
    if "theirs.org" in known:
        offer["theirs.org"] = known["theirs.org"]  # unchanged
    bundles, refused = compose("ours.org", offer, known)

    assert [bundle.trust_domain for bundle in bundles.values()] == [
        getattr(each, "trust_domain", each) for each in stands
    ]
    assert set(refused) == yields
    assert all(bundles[name] is known[name] for name in yields & known.keys())


async def test_after_its_own_end_the_door_lets_nobody_shake_hands(door: Door) -> None:
    """Not even a client whose clock is behind; and a fresh SVID opens it again."""
    async with door.channel(AGENT) as channel:
        assert await _ask(channel) == ID
        door.clock.by = HOUR + timedelta(minutes=1)
        door.tls.refresh()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await door.ask(HOME.svid(ID, ends=2 * HOUR))
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert door.reached == 1
    door.serve_as(HOME.svid("spiffe://example.org/broker", dns=["localhost"], ends=3 * HOUR))
    assert await door.ask(HOME.svid(ID, ends=2 * HOUR)) == ID


def test_when_a_renewal_is_overdue() -> None:
    def moments(begins: int, ends: int, asked: Callable[[ServerIdentity, datetime], bool]) -> list[int]:
        begin, end = (STARTED + timedelta(seconds=each) for each in (begins, ends))
        identity = ServerIdentity(SpiffeId.parse(ID), b"", b"", begin, end, (), "")
        return [each for each in range(ends + 2) if asked(identity, STARTED + timedelta(seconds=each))]

    assert moments(-10, 100, ServerIdentity.overdue) == list(range(61, 102))  # 60 % of 100 s
    assert moments(-10, 5, ServerIdentity.overdue) == [4, 5, 6]
    assert moments(-1, 2, ServerIdentity.overdue) == [3]  # all of it could be backdating
    assert moments(-10, 100, ServerIdentity.ended) == [101]


async def test_tls_before_1_2_is_refused(door: Door, tmp_path: Path) -> None:
    assert await door.served_certificate(tmp_path, ssl.TLSVersion.TLSv1_2)
    with pytest.warns(DeprecationWarning), pytest.raises(ConnectionResetError):
        await door.served_certificate(tmp_path, ssl.TLSVersion.TLSv1_1)


async def test_second_server_cannot_share_the_port(door: Door) -> None:
    rival = grpc.aio.server(options=SERVER_OPTIONS)

    with pytest.raises(RuntimeError, match="bind"):
        rival.add_secure_port(f"localhost:{door.port}", door.tls.credentials())


TRANSPORT_LIMIT = dict(SERVER_OPTIONS)["grpc.max_receive_message_length"]


async def test_message_over_the_transports_limit_never_reaches_a_handler(door: Door) -> None:
    async with door.channel(AGENT) as channel:
        assert await _ask(channel, b"x" * TRANSPORT_LIMIT) == ID
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await _ask(channel, b"x" * (TRANSPORT_LIMIT + 1))

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert door.reached == 1


def test_every_option_is_one_that_grpc_knows() -> None:
    # An unknown option is ignored without a word, so a misspelt limit would be no limit.
    library = Path(cygrpc.__file__).read_bytes()

    assert [name for name, _ in SERVER_OPTIONS if name.encode() not in library] == []


@pytest.mark.parametrize("missing", ["certificate", "key", "bundle"])
def test_broker_without_good_material_does_not_start(tmp_path: Path, missing: str) -> None:
    made = Door(tmp_path)
    path = made.bundles["partner.org"] if missing == "bundle" else getattr(made, missing)
    path.unlink()

    with pytest.raises(InvalidInput) as refused:
        made.make()

    assert refused.value.reason is Reason.CONFIG_INVALID
    assert str(path) in refused.value.message


def _context(**values: list[bytes]) -> dict[str, list[bytes]]:
    return {"x509_pem_cert": [AGENT.certificate.public_bytes(Encoding.PEM)], **values}


@pytest.mark.parametrize(
    ("auth_context", "reason"),
    [
        pytest.param({}, Reason.SVID_MISSING, id="nothing"),
        pytest.param({"peer_spiffe_id": [ID.encode()]}, Reason.SVID_MISSING, id="an id and no certificate"),
        pytest.param(_context(peer_spiffe_id=[b"spiffe://example.org/admin"]), Reason.SVID_MALFORMED, id="another id"),
        pytest.param(_context(peer_spiffe_id=[ID.encode()] * 2), Reason.SVID_MALFORMED, id="two ids"),
        pytest.param(_context(peer_spiffe_id=[]), Reason.SVID_MALFORMED, id="an empty list of ids"),
        pytest.param(_context(x509_pem_cert=[AGENT.pem, AGENT.pem]), Reason.SVID_MALFORMED, id="two certificates"),
        pytest.param(_context(x509_pem_cert_chain=[b"", b""]), Reason.SVID_MALFORMED, id="two chains"),
        pytest.param(_context(x509_pem_cert_chain=[b"x"]), Reason.SVID_CHAIN_INVALID, id="garbage as chain"),
    ],
)
def test_auth_context_that_does_not_add_up_is_refused(auth_context: dict[str, list[bytes]], reason: Reason) -> None:
    bundles = Bundles([TrustBundle.from_pem("example.org", HOME.pem)])

    with pytest.raises(Unauthenticated) as refused:
        peer_from_auth_context(auth_context, bundles, PeerCache(), STARTED)

    assert refused.value.reason is reason
    agreed = peer_from_auth_context(_context(peer_spiffe_id=[ID.encode()]), bundles, PeerCache(), STARTED)
    assert str(agreed.spiffe_id) == ID
