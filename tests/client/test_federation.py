"""An agent of another trust domain than the broker's: over real TLS, believed by exactly the bundle that is named."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import broker.client
from broker.client import AsyncClient
from broker.client.explain import svid_problem
from broker.client.svid import FileSource, Material
from broker.client.workload_api import WorkloadApiSource
from broker.errors import BrokerError, InvalidInput, NotReady, Reason, Unauthenticated
from tests.client.fake_broker import TRUST_DOMAIN, FakeBroker
from tests.client.test_rotation import PushedSource, connect
from tests.forge import Authority, Forged, authority
from tests.patience import PATIENCE, becomes_true
from tests.workloadapi.server import ScriptedWorkloadApi, answer, der, svid

pytestmark = pytest.mark.usefixtures("hasty", "nothing_from_the_environment")

PARTNER_DOMAIN, OTHER_DOMAIN = "partner.test", "other.test"
AUDITOR = f"spiffe://{PARTNER_DOMAIN}/agent/auditor"
NOW = datetime.now(UTC)
# The broker's trust domain, its next root, the agent's own, and one more that both may federate with.
HOME, NEXT = authority(TRUST_DOMAIN, at=NOW), authority(TRUST_DOMAIN, at=NOW, name="next")
PARTNER, OTHER = authority(PARTNER_DOMAIN, at=NOW), authority(OTHER_DOMAIN, at=NOW)
EVERY_BUNDLE = {TRUST_DOMAIN: der(HOME), OTHER_DOMAIN: der(OTHER)}


@pytest.fixture
def nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BROKER_TRUST_DOMAIN", "BROKER_AUDIENCE", "SPIFFE_ENDPOINT_SOCKET"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def auditor() -> Forged:
    return PARTNER.svid(AUDITOR)


@pytest.fixture
def api(auditor: Forged, tmp_path: Path) -> Iterator[ScriptedWorkloadApi]:
    """What the partner's SPIRE gives its agent: its SVID, its own bundle, and two others."""
    served = ScriptedWorkloadApi(tmp_path / "api.sock", answer(svid(auditor, PARTNER), federated=EVERY_BUNDLE)).start()
    yield served
    served.stop()


def serve(server_ca: Authority, address: str = "") -> FakeBroker:
    """A server with the broker's id and DNS name, whoever signed them, that accepts the partner's agents."""
    return FakeBroker(ca=PARTNER, server_ca=server_ca, address=address).start()


@pytest.fixture
def home() -> Iterator[FakeBroker]:
    """The broker."""
    fake = serve(HOME)
    yield fake
    fake.stop()


async def refusal(client: AsyncClient) -> BrokerError:
    async with client:
        with pytest.raises(BrokerError) as refused:
            await client.whoami()
    return refused.value


def roots_in_use(client: AsyncClient) -> int:
    assert client.connection.material is not None
    return len(client.connection.material.bundle.roots)


# --------------------------------------------------------------------------- who is believed


@pytest.mark.parametrize("way", ["workload api", "files", "workload api and a bundle file"])
async def test_a_partners_agent_reaches_the_broker_of_the_trust_domain_it_names(
    home: FakeBroker, api: ScriptedWorkloadApi, auditor: Forged, tmp_path: Path, way: str
) -> None:
    certificate, key, bundle = tmp_path / "svid.pem", tmp_path / "svid.key", tmp_path / "bundle.pem"
    certificate.write_bytes(auditor.pem)
    key.write_bytes(auditor.key_pem)
    bundle.write_bytes(HOME.pem)
    if way == "files":
        client = broker.client.connect(
            home.address, trust_domain=TRUST_DOMAIN, certificate=certificate, key=key, bundle=bundle
        )
    elif way == "workload api":
        client = broker.client.connect(home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN)
    else:
        api.say(answer(svid(auditor, PARTNER)))
        client = broker.client.connect(
            home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN, bundle=bundle
        )
    async with client:
        assert (await client.whoami()).owner == "Ada"
        material = client.connection.material
    assert material is not None
    assert str(material.spiffe_id) == AUDITOR
    assert (material.bundle.trust_domain, material.bundle.pem) == (TRUST_DOMAIN, HOME.pem)
    assert home.serials == [auditor.pem]


@pytest.mark.parametrize(
    ("named", "signer", "believed"),
    [
        (TRUST_DOMAIN, HOME, True),
        (TRUST_DOMAIN, PARTNER, False),  # the agent's own authority
        (TRUST_DOMAIN, OTHER, False),
        (TRUST_DOMAIN, NEXT, False),  # says it is of that trust domain; its bundle says otherwise
        (OTHER_DOMAIN, OTHER, True),
        (OTHER_DOMAIN, HOME, False),
        ("", PARTNER, True),
        ("", HOME, False),
        ("", OTHER, False),
        (PARTNER_DOMAIN, PARTNER, True),
        (PARTNER_DOMAIN, HOME, False),
    ],
)
async def test_one_trust_domains_authority_is_believed_and_no_other(
    api: ScriptedWorkloadApi, named: str, signer: Authority, believed: bool
) -> None:
    """All three bundles are at hand; the server always has the broker's SPIFFE ID and DNS name."""
    fake = serve(signer)
    client = broker.client.connect(fake.address, workload_api=api.endpoint, trust_domain=named)
    try:
        if believed:
            async with client:
                assert (await client.whoami()).owner == "Ada"
            return
        error = await refusal(client)
    finally:
        fake.stop()
    assert isinstance(error, NotReady)
    assert error.reason is Reason.BROKER_UNTRUSTED
    assert error.metadata["trustDomain"] == (named or PARTNER_DOMAIN)
    assert error.metadata["ownTrustDomain"] == PARTNER_DOMAIN
    assert f"trust domain {named or PARTNER_DOMAIN}" in error.message
    assert fake.calls == []


async def test_the_name_is_demanded_as_well(home: FakeBroker, api: ScriptedWorkloadApi) -> None:
    client = broker.client.connect(
        home.address, "broker.example.org", workload_api=api.endpoint, trust_domain=TRUST_DOMAIN
    )
    assert (await refusal(client)).reason is Reason.BROKER_NAME_MISMATCH
    assert home.calls == []


async def test_a_broker_that_does_not_federate_with_us(api: ScriptedWorkloadApi) -> None:
    fake = FakeBroker(ca=HOME).start()
    try:
        error = await refusal(broker.client.connect(fake.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN))
    finally:
        fake.stop()
    assert isinstance(error, Unauthenticated)
    assert error.reason is Reason.SVID_CHAIN_INVALID
    assert error.metadata["trustDomain"] == PARTNER_DOMAIN
    assert "identity.federates_with" in error.hint


# --------------------------------------------------------------------------- what is missing, or wrong


async def test_without_the_named_bundle_nobody_is_asked(
    home: FakeBroker, api: ScriptedWorkloadApi, auditor: Forged
) -> None:
    api.say(answer(svid(auditor, PARTNER), federated={OTHER_DOMAIN: der(OTHER)}))
    error = await refusal(broker.client.connect(home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN))
    assert isinstance(error, NotReady)
    assert error.reason is Reason.BROKER_BUNDLE_MISSING
    assert error.metadata == {
        "trustDomain": TRUST_DOMAIN,
        "ownTrustDomain": PARTNER_DOMAIN,
        "bundles": f"{OTHER_DOMAIN}, {PARTNER_DOMAIN}",
        "workloadApi": api.endpoint,
        "spiffeId": AUDITOR,
    }
    assert f"a broker of {TRUST_DOMAIN}" in error.message
    assert f"{OTHER_DOMAIN}, {PARTNER_DOMAIN}" in error.message
    assert f"-federatesWith spiffe://{TRUST_DOMAIN}" in error.hint
    assert home.serials == []


@pytest.mark.parametrize("bundle", [b"", b"\x30\x03junk", HOME.pem, der(PARTNER)])
async def test_a_named_bundle_that_is_none_is_refused(
    home: FakeBroker, api: ScriptedWorkloadApi, auditor: Forged, bundle: bytes
) -> None:
    """Given, and without a root of that trust domain in it. Our own roots name us, and so cannot be its."""
    api.say(answer(svid(auditor, PARTNER), federated={**EVERY_BUNDLE, TRUST_DOMAIN: bundle}))
    error = await refusal(broker.client.connect(home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN))
    assert isinstance(error, InvalidInput)
    assert error.reason is Reason.CONFIG_INVALID
    assert error.metadata["trustDomain"] == TRUST_DOMAIN
    assert home.serials == []


async def test_a_root_of_ours_in_the_brokers_bundle_is_refused(tmp_path: Path) -> None:
    """A root that names nobody could be in both: our own authority could then pose as the broker."""
    nameless = authority(PARTNER_DOMAIN, at=NOW, name="nameless", uris=())
    agent = nameless.svid(AUDITOR)
    says = answer(svid(agent, nameless), federated={TRUST_DOMAIN: der(HOME, nameless)})
    api = ScriptedWorkloadApi(tmp_path / "api.sock", says).start()
    impostor = FakeBroker(ca=nameless, server_ca=nameless).start()
    try:
        client = broker.client.connect(impostor.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN)
        error = await refusal(client)
    finally:
        impostor.stop()
        api.stop()
    assert isinstance(error, InvalidInput)
    assert f"shares a root key with the bundle of {PARTNER_DOMAIN}" in error.message
    assert impostor.calls == []


@pytest.mark.parametrize(
    "name",
    [
        *(f"spiffe://{TRUST_DOMAIN}", f"{TRUST_DOMAIN}/", f" {TRUST_DOMAIN}", f"{TRUST_DOMAIN}\n", "Example.org"),
        *("example.org,partner.test", "*", " ", "exämple.org", "a" * 256),
    ],
)
def test_what_is_no_trust_domain_is_refused(api: ScriptedWorkloadApi, name: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        broker.client.connect("b:1", workload_api=api.endpoint, trust_domain=name)
    assert refused.value.reason is Reason.CONFIG_INVALID
    assert "BROKER_TRUST_DOMAIN" in refused.value.hint
    assert api.asked == 0


def test_a_bundle_alone_must_be_said_to_be_somebodys(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="1 of 3"):
        broker.client.connect("b:1", workload_api="unix:///nowhere", bundle=tmp_path / "bundle.pem")
    with pytest.raises(InvalidInput, match="2 of 3"):
        broker.client.connect(
            "b:1", trust_domain=TRUST_DOMAIN, certificate=tmp_path / "c", bundle=tmp_path / "bundle.pem"
        )


async def test_the_environment_names_it_unless_the_caller_does(
    home: FakeBroker, api: ScriptedWorkloadApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TRUST_DOMAIN", TRUST_DOMAIN)
    async with broker.client.connect(home.address, workload_api=api.endpoint) as client:
        assert (await client.whoami()).owner == "Ada"
    own = broker.client.connect(home.address, workload_api=api.endpoint, trust_domain="")
    assert (await refusal(own)).reason is Reason.BROKER_UNTRUSTED
    monkeypatch.setenv("BROKER_TRUST_DOMAIN", f"spiffe://{TRUST_DOMAIN}")
    with pytest.raises(InvalidInput):
        broker.client.connect(home.address, workload_api=api.endpoint)


# --------------------------------------------------------------------------- what is said of our own SVID


def material_of(source: WorkloadApiSource | FileSource) -> Material:
    try:
        return source.current()
    finally:
        source.close()


def test_our_own_svid_is_judged_by_our_own_bundle(api: ScriptedWorkloadApi) -> None:
    """The broker's authority has signed an id of ours: to this side, too, that is no SVID of ours."""
    good = material_of(WorkloadApiSource(api.endpoint, trust_domain=TRUST_DOMAIN))
    assert svid_problem(good, NOW) is None
    assert "chain" in {verdict.rule for verdict in good.verdicts(NOW)}
    api.say(answer(svid(HOME.svid(AUDITOR), PARTNER), federated=EVERY_BUNDLE))
    problem = svid_problem(material_of(WorkloadApiSource(api.endpoint, trust_domain=TRUST_DOMAIN)), NOW)
    assert problem is not None
    assert problem.reason is Reason.SVID_CHAIN_INVALID


def test_without_our_own_bundle_nothing_is_said_of_our_chain(auditor: Forged, tmp_path: Path) -> None:
    """Files hold the broker's bundle alone. Every other rule is asked all the same."""
    for name, pem in (("svid.pem", auditor.pem), ("svid.key", auditor.key_pem), ("bundle.pem", HOME.pem)):
        (tmp_path / name).write_bytes(pem)
    source = FileSource(tmp_path / "svid.pem", tmp_path / "svid.key", tmp_path / "bundle.pem", TRUST_DOMAIN)
    material = material_of(source)
    assert svid_problem(material, NOW) is None
    rules = [verdict.rule for verdict in material.verdicts(NOW)]
    assert len(rules) > 5
    assert "chain" not in rules
    weak = PARTNER.svid(AUDITOR, usage=("key_agreement",))
    (tmp_path / "svid.pem").write_bytes(weak.pem)
    (tmp_path / "svid.key").write_bytes(weak.key_pem)
    problem = svid_problem(material_of(source), NOW)
    assert problem is not None
    assert problem.reason is Reason.SVID_KEY_USAGE


# --------------------------------------------------------------------------- what changes while it runs


class Running:
    """A client that has called once, and the agent's Workload API."""

    def __init__(self, client: AsyncClient, api: ScriptedWorkloadApi, auditor: Forged) -> None:
        self.client = client
        self._api = api
        self._svid = svid(auditor, PARTNER)

    def give(self, federated: Mapping[str, bytes]) -> None:
        """The Workload API gives these bundles from now on."""
        self._api.say(answer(self._svid, federated=federated))


@pytest.fixture
def running(home: FakeBroker, api: ScriptedWorkloadApi, auditor: Forged) -> Running:
    client = broker.client.connect(home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN)
    return Running(client, api, auditor)


async def test_the_brokers_authority_is_replaced_and_no_call_is_lost(home: FakeBroker, running: Running) -> None:
    """The next root is published, the broker moves to it, the old one is taken out."""
    async with running.client as client:
        await client.whoami()
        running.give({TRUST_DOMAIN: der(HOME, NEXT)})
        while roots_in_use(client) != 2:
            await client.whoami()
        home.stop()
        renewed = serve(NEXT, home.address)
        try:
            await client.whoami()
            running.give({TRUST_DOMAIN: der(NEXT)})
            while roots_in_use(client) != 1:
                await client.whoami()
            assert (await client.whoami()).owner == "Ada"
        finally:
            await asyncio.to_thread(renewed.stop)


async def test_a_root_that_is_taken_out_ends_what_it_opened(home: FakeBroker, running: Running) -> None:
    """The connection is up and the SVID good; whoever goes on showing that root is not the broker any more."""
    async with running.client as client:
        await client.whoami()
        running.give({TRUST_DOMAIN: der(NEXT)})
        refused = None
        async with asyncio.timeout(PATIENCE):
            while refused is None:
                try:
                    await client.whoami()
                except NotReady as error:
                    refused = error
        assert refused.reason is Reason.BROKER_UNTRUSTED
        before = len(home.calls)
        with pytest.raises(NotReady):
            await client.whoami()
        assert len(home.calls) == before
        running.give({TRUST_DOMAIN: der(NEXT, HOME)})
        await becomes_true(lambda: roots_in_use(client) == 2)
        assert (await client.whoami()).owner == "Ada"


async def test_a_bundle_that_is_taken_away_ends_it_until_it_is_given_again(home: FakeBroker, running: Running) -> None:
    async with running.client as client:
        await client.whoami()
        watching = asyncio.create_task(anext(client.watch(after_sequence=0)))
        await asyncio.to_thread(home.wait_until, lambda: bool(home.asked("WatchLeases")))
        running.give({OTHER_DOMAIN: der(OTHER)})
        await becomes_true(lambda: client.connection.material is None)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(NotReady) as ended:
                await watching
        assert ended.value.reason is Reason.BROKER_BUNDLE_MISSING
        before = len(home.calls)
        with pytest.raises(NotReady) as refused:
            await client.whoami()
        assert refused.value.reason is Reason.BROKER_BUNDLE_MISSING
        assert len(home.calls) == before

        running.give(EVERY_BUNDLE)
        given = False
        async with asyncio.timeout(PATIENCE):
            while not given:
                try:
                    given = (await client.whoami()).owner == "Ada"
                except NotReady as error:
                    assert error.reason is Reason.BROKER_BUNDLE_MISSING
        # It is followed as before, and once.
        assert sum(task.get_name() == "broker.client: follow the SVID" for task in asyncio.all_tasks()) == 1
        running.give({TRUST_DOMAIN: der(HOME, NEXT)})
        await becomes_true(lambda: roots_in_use(client) == 2)


async def test_a_call_under_way_ends_well_when_the_bundle_is_taken_away(home: FakeBroker, running: Running) -> None:
    """It was asked of a broker that was believed; its answer may hold a credential that nobody else would revoke."""
    go_on = threading.Event()

    def wait() -> None:
        go_on.wait(PATIENCE)

    async with running.client as client:
        await client.templates()
        home.before["WhoAmI"] = wait
        calling = asyncio.create_task(client.whoami())
        await asyncio.to_thread(home.wait_until, lambda: bool(home.asked("WhoAmI")))
        running.give({})
        await becomes_true(lambda: client.connection.material is None)
        go_on.set()
        assert (await calling).owner == "Ada"


async def test_an_expired_svid_is_not_looked_past_a_bundle_that_was_taken_away() -> None:
    """The call itself looks for a newer SVID, and finds that the broker is not to be believed."""
    fake = FakeBroker().start()
    source = PushedSource(fake, fake.agent(begins=-timedelta(hours=2), ends=-timedelta(hours=1)))
    try:
        async with connect(source, fake) as client:
            await client.connection._open()
            source.error = NotReady(Reason.BROKER_BUNDLE_MISSING, "It was taken away.")
            for _ in range(2):
                with pytest.raises(NotReady, match="taken away"):
                    await client.whoami()
            assert fake.calls == []
            source.error, source.svid = None, fake.agent()
            assert (await client.whoami()).owner == "Ada"
    finally:
        await asyncio.to_thread(fake.stop)


@pytest.mark.parametrize("broken", [b"", b"\x30\x03junk", der(PARTNER)])
async def test_a_bundle_that_is_none_takes_no_good_ones_place(running: Running, broken: bytes) -> None:
    async with running.client as client:
        await client.whoami()
        running.give({TRUST_DOMAIN: broken})
        await becomes_true(lambda: client.connection.renewal_error is not None)
        assert client.connection.renewal_error is not None
        assert client.connection.renewal_error.reason is Reason.CONFIG_INVALID
        assert (await client.whoami()).owner == "Ada"
        running.give({TRUST_DOMAIN: der(HOME, NEXT)})
        await becomes_true(lambda: roots_in_use(client) == 2)


async def test_a_bundle_file_beside_the_workload_api_is_followed(
    home: FakeBroker, api: ScriptedWorkloadApi, tmp_path: Path
) -> None:
    """It is taken instead of what the Workload API gives, which would do here."""
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(NEXT.pem)
    client = broker.client.connect(home.address, workload_api=api.endpoint, trust_domain=TRUST_DOMAIN, bundle=bundle)
    async with client:
        with pytest.raises(NotReady) as refused:
            await client.whoami()
        assert refused.value.reason is Reason.BROKER_UNTRUSTED
        bundle.write_bytes(NEXT.pem + HOME.pem)
        await becomes_true(lambda: roots_in_use(client) == 2)
        assert (await client.whoami()).owner == "Ada"
