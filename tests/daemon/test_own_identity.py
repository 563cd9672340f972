"""brokerd's own SVID and bundles: what is kept, what rings, and when the gate closes. Time is an argument."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from broker.config import Config, load_config
from broker.daemon.identity import OwnIdentity
from broker.errors import BrokerError, NotReady, Reason
from broker.issuance.gate import Gate
from tests.api.served import DOMAIN, private, write_config
from tests.clock import ManualClock
from tests.daemon.test_life import brokerd, page, running
from tests.forge import Forged, authority
from tests.patience import PATIENCE, until
from tests.workloadapi.server import ScriptedWorkloadApi, answer, der, svid

NOW = datetime.now(UTC).replace(microsecond=0)
HOUR = timedelta(hours=1)
HOME, NEXT = authority(DOMAIN, at=NOW), authority(DOMAIN, at=NOW, name="next")
PARTNER, STRANGER = authority("partner.org", at=NOW), authority("stranger.org", at=NOW)
ID = f"spiffe://{DOMAIN}/broker"


def own(ca: Any = HOME, **defects: Any) -> Forged:
    made: Forged = ca.svid(ID, dns=["brokerd"], **{"begins": timedelta(), "ends": HOUR, **defects})
    return made


class World:
    """One OwnIdentity on a Workload API that says what the test wants, at a time the test sets."""

    def __init__(self, root: Path, **identity: Any) -> None:
        self.api = ScriptedWorkloadApi(root / "api.sock", answer(svid(own(), HOME))).start()
        self.clock = ManualClock(NOW + timedelta(minutes=1))
        self.gate = Gate(timedelta(hours=100), 1, HOUR, heartbeat=NOW)
        self.root = root
        settings = {"workload_api": self.api.endpoint, "federates_with": ["partner.org"], **identity}
        self.config: Config = load_config(write_config(root, identity=settings))
        self.opened: list[OwnIdentity] = []

    def open(self) -> OwnIdentity:
        self.opened.append(OwnIdentity(self.config, self.gate, self.clock))
        return self.opened[-1]

    def close(self) -> None:
        for each in self.opened:
            each.close()
        self.api.stop()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.close()


def reasons(identity: OwnIdentity, world: World) -> list[str]:
    return [alarm.reason for alarm in identity.alarms(world.clock.now())]


def trusts(identity: OwnIdentity, name: str, *roots: Forged) -> bool:
    bundle = identity.tls.bundles.get(name)
    found = {root.certificate for root in bundle.roots} if bundle else set()
    return found == {root.certificate for root in roots}


def test_a_push_is_in_force_without_anybody_looking(world: World) -> None:
    identity = world.open()
    fresh = own(NEXT)
    world.api.say(answer(svid(fresh, HOME, NEXT), federated={"partner.org": der(PARTNER)}))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    assert trusts(identity, DOMAIN, HOME, NEXT)
    assert trusts(identity, "partner.org", PARTNER)
    assert reasons(identity, world) == []


def test_half_a_life_and_its_end(world: World) -> None:
    identity = world.open()
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    until(lambda: reasons(identity, world) == [])
    before = world.clock.now()
    for minutes, alarmed, closed in ((30, False, False), (36, False, False), (37, True, False), (60, True, False)):
        world.clock.advance(NOW + timedelta(minutes=minutes) - world.clock.now())
        identity.look()
        assert (Reason.OWN_SVID_OVERDUE in reasons(identity, world), minutes) == (alarmed, minutes)
        assert (world.gate.why_closed(world.clock.now()) is not None) is closed
    world.clock.advance(timedelta(milliseconds=1))
    identity.look()
    shut = world.gate.why_closed(world.clock.now())
    assert shut is not None and shut.reason is Reason.OWN_SVID_EXPIRED
    fresh = own(ends=5 * HOUR)
    world.api.say(answer(svid(fresh, HOME), federated={"partner.org": der(PARTNER)}))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    identity.look()
    assert world.gate.why_closed(world.clock.now()) is None
    assert reasons(identity, world) == []
    assert world.clock.now() > before


def test_its_end_is_logged_once_and_that_another_one_is_in_force(world: World) -> None:
    identity = world.open()
    world.clock.advance(2 * HOUR)
    with capture_logs() as logged:
        identity.look()
        identity.look()
    (told,) = [each for each in logged if each["log_level"] == "error"]
    assert (told["reason"], told["ended"]) == (Reason.OWN_SVID_EXPIRED, (NOW + HOUR).isoformat())
    fresh = own(ends=5 * HOUR)
    world.api.say(answer(svid(fresh, HOME)))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    with capture_logs() as logged:
        identity.look()
        identity.look()
    assert ["grants resume" in each["event"] for each in logged if each["log_level"] == "warning"] == [True]


@pytest.mark.parametrize("at", [NOW - HOUR, NOW + 2 * HOUR], ids=["not yet", "no more"])
def test_an_svid_that_time_or_a_renewal_mends_is_no_wrong_configuration(world: World, at: datetime) -> None:
    """A supervisor tries again: a machine that starts finds old files, or has not set its clock yet."""
    world.clock.advance(at - world.clock.now())
    with pytest.raises(NotReady) as refused:
        world.open()
    assert refused.value.reason is Reason.OWN_SVID_EXPIRED


def test_each_alarm_is_logged_once_and_its_end_too(world: World) -> None:
    identity = world.open()
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    until(lambda: reasons(identity, world) == [])
    identity.look()
    world.clock.advance(timedelta(minutes=40))
    with capture_logs() as logged:
        for _ in range(5):
            identity.look()
            world.clock.advance(timedelta(seconds=1))
    assert [each["log_level"] for each in logged] == ["warning"]
    assert logged[0]["reason"] == Reason.OWN_SVID_OVERDUE
    fresh = own(ends=5 * HOUR)
    world.api.say(answer(svid(fresh, HOME), federated={"partner.org": der(PARTNER)}))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    with capture_logs() as logged:
        identity.look()
        identity.look()
    assert [each["log_level"] for each in logged] == ["info"]


def test_a_workload_api_that_goes_away_changes_nothing_until_time_does(world: World) -> None:
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    identity = world.open()
    before = identity.tls.identity
    world.api.stop()
    for _ in range(20):
        identity.look()
    assert identity.tls.identity is before
    assert trusts(identity, DOMAIN, HOME)
    world.clock.advance(timedelta(minutes=45))
    assert Reason.OWN_SVID_OVERDUE in reasons(identity, world)
    fresh = own(ends=2 * HOUR)
    world.api.say(answer(svid(fresh, HOME), federated={"partner.org": der(PARTNER)}))
    world.api.start()
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    assert reasons(identity, world) == []


BAD_PUSHES = {
    "own bundle empty": lambda: answer(svid(own())),
    "nothing at all": answer,
    "invalid argument": lambda: grpc.StatusCode.INVALID_ARGUMENT,
    "no svid": lambda: answer(federated={"partner.org": der(PARTNER)}),
    "expired": lambda: answer(svid(own(begins=-2 * HOUR, ends=-HOUR), HOME), federated={"partner.org": der(PARTNER)}),
    "of the partner": lambda: answer(
        svid(PARTNER.svid("spiffe://partner.org/broker", dns=["brokerd"]), PARTNER), federated={DOMAIN: der(HOME)}
    ),
    "a key of another": lambda: answer(_mismatched(), federated={"partner.org": der(PARTNER)}),
}


def _mismatched() -> Any:
    message = svid(own(), HOME)
    message.x509_svid_key = svid(own(), HOME).x509_svid_key
    return message


@pytest.mark.parametrize(
    "bad", [pytest.param(bad, marks=[pytest.mark.slow] if at >= 2 else []) for at, bad in enumerate(BAD_PUSHES)]
)
def test_what_must_not_be_used_takes_nothings_place_and_rings(world: World, bad: str) -> None:
    first = own()
    world.api.say(answer(svid(first, HOME), federated={"partner.org": der(PARTNER)}))
    identity = world.open()
    world.api.say(BAD_PUSHES[bad]())
    until(lambda: reasons(identity, world))
    assert identity.tls.identity.chain_pem == first.pem
    assert trusts(identity, DOMAIN, HOME)
    assert trusts(identity, "partner.org", PARTNER)
    fresh = own()
    world.api.say(answer(svid(fresh, HOME, NEXT), federated={"partner.org": der(PARTNER)}))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem and not reasons(identity, world))
    assert trusts(identity, DOMAIN, HOME, NEXT)


def test_a_partners_empty_bundle_holds_up_neither_our_renewal_nor_our_roots(world: World) -> None:
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    identity = world.open()
    fresh = own(NEXT)
    world.api.say(answer(svid(fresh, NEXT), federated={"partner.org": b""}))
    until(lambda: identity.tls.identity.chain_pem == fresh.pem)
    assert trusts(identity, DOMAIN, NEXT)
    assert trusts(identity, "partner.org", PARTNER)  # an empty one takes nothing's place
    (alarm,) = identity.alarms(world.clock.now())
    assert "partner.org has no certificate" in alarm.message


def test_a_partner_who_is_taken_away_is_gone_and_comes_back(world: World) -> None:
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    identity = world.open()
    world.api.say(answer(svid(own(), HOME)))
    until(lambda: "partner.org" not in identity.tls.bundles)
    (alarm,) = identity.alarms(world.clock.now())
    assert alarm.reason is Reason.SVID_TRUST_DOMAIN_UNKNOWN
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(PARTNER)}))
    until(lambda: trusts(identity, "partner.org", PARTNER))


def test_who_is_not_federated_with_is_not_trusted_whatever_is_pushed(world: World) -> None:
    federated = {"partner.org": der(PARTNER), "stranger.org": der(STRANGER), DOMAIN: der(STRANGER)}
    world.api.say(answer(svid(own(), HOME), federated=federated))
    identity = world.open()
    assert set(identity.tls.bundles) == {DOMAIN, "partner.org"}
    assert trusts(identity, DOMAIN, HOME)


def test_a_file_stands_above_the_workload_api(tmp_path: Path) -> None:
    file = private(tmp_path / "partner.pem", PARTNER.pem)
    world = World(tmp_path, bundles={"partner.org": str(file)})
    try:
        other = authority("partner.org", at=NOW)
        world.api.say(answer(svid(own(), HOME), federated={"partner.org": der(other)}))
        identity = world.open()
        assert trusts(identity, "partner.org", PARTNER)
        private(file, other.pem + PARTNER.pem)
        identity.look()
        assert trusts(identity, "partner.org", PARTNER, other)
    finally:
        world.close()


@pytest.mark.parametrize(
    ("says", "told"),
    [
        (answer(svid(own(begins=-2 * HOUR, ends=-HOUR), HOME)), "was valid until"),
        (answer(svid(HOME.svid(f"spiffe://{DOMAIN}/broker", ca=True), HOME)), "gave no SVID"),
        (answer(svid(PARTNER.svid("spiffe://partner.org/b"), PARTNER)), f"the broker's own is {DOMAIN}"),
        (answer(svid(own())), "gave no SVID"),
        (answer(svid(own(), PARTNER)), "names something else"),
    ],
)
def test_nothing_good_at_the_start_is_no_start(world: World, says: Any, told: str) -> None:
    world.api.say(says)
    with pytest.raises(BrokerError, match=told):
        world.open()
    assert world.gate.own_svid_ends is None


def test_no_workload_api_at_the_start_is_no_start(world: World) -> None:
    world.api.stop()
    with pytest.raises(BrokerError, match="gave no SVID"):
        world.open()


def test_the_process_serves_with_it_tells_of_it_and_stops_as_told(world: World) -> None:
    world.api.say(answer(svid(own(), HOME), federated={"partner.org": b""}))
    with running(world.root / "brokerd.yaml") as (process, port):
        told = page(port, "readyz")
        assert told is not None and told.status_code == 200
        assert sum("partner.org" in warning for warning in told.json()["warnings"]) == 1
        metrics = page(port, "metrics")
        assert metrics is not None
        for line in (
            f'broker_bundle_roots{{trust_domain="{DOMAIN}"}} 1.0',
            "broker_svid_overdue 0.0",
            "broker_tls_problems 1.0",
        ):
            assert line in metrics.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


def test_the_process_does_not_start_without_it_and_may_be_started_again(world: World) -> None:
    world.api.stop()
    process = brokerd(world.root / "brokerd.yaml")
    try:
        assert process.wait(PATIENCE) == 69  # unavailable, not misconfigured: a supervisor tries again
    finally:
        process.kill()
