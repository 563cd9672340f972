"""A second trust domain with a SPIRE of its own: let in when both sides say so, and then as itself only."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.audit.event import EventType
from broker.errors import Reason
from integration.spire.brokers import PARTNER, SERVER_NAME, TRUST_DOMAIN, Broker
from integration.spire.conftest import BROKER_PATH
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.thief import options, serving, signed_by
from integration.spire.upstreams import Upstreams
from tests.patience import PATIENCE

# SPIRE's own round, and the broker's five seconds.
AUDITOR, RECONCILER = f"spiffe://{PARTNER}/agent/auditor", f"spiffe://{TRUST_DOMAIN}/agent/reconciler"


@pytest.fixture(scope="module")
def meeting(directory: Path, spire: Spire, partner: Spire, upstreams: Upstreams) -> Iterator[Broker]:
    """A broker whose entry federates with the partner, and whose configuration does not, yet.

    The bundles are exchanged by hand, as two operators do by a way that both trust.
    """
    partner.server.federate(spire.server)
    spire.server.federate(partner.server)
    program = spire.program("meeting")
    spire.enrol(BROKER_PATH, program, dns=[SERVER_NAME], federates_with=[PARTNER])
    made = Broker(directory / "meeting", [str(program.path), "-m", "broker.daemon"], upstreams.environment())
    made.configure({"workload_api": spire.agent.endpoint})
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="module")
def auditor(partner: Spire, meeting: Broker) -> Program:
    """The partner's agent, with the SDK. It knows our broker by our bundle, which its own SPIRE gives it."""
    program = partner.program("auditor", {"BROKER_ADDRESS": meeting.address, "BROKER_TRUST_DOMAIN": TRUST_DOMAIN})
    partner.enrol("/agent/auditor", program, federates_with=[TRUST_DOMAIN])
    return program


@pytest.fixture(scope="module")
def federated(meeting: Broker, spire: Spire) -> Broker:
    """From here on the broker is configured to know the partner, too."""
    meeting.stop()
    meeting.configure({"workload_api": spire.agent.endpoint, "federates_with": [PARTNER]})
    meeting.start()
    return meeting


def test_a_partners_agent_gets_in_only_once_the_broker_federates(
    auditor: Program, upstreams: Upstreams, request: pytest.FixtureRequest
) -> None:
    """What the partner's agent does is the same before and after; what SPIRE hands out, too."""
    # TLS ends before the broker can say anything; the SDK finds out by itself.
    assert auditor.run("login") == {"reason": Reason.SVID_CHAIN_INVALID}
    request.getfixturevalue("federated")
    told = auditor.run("login")
    assert told["spiffeId"] == AUDITOR and told["orders"], told
    assert told["login"] not in upstreams.logins()


def test_a_partners_agent_believes_the_trust_domain_it_names_and_no_other(
    auditor: Program, partner: Spire, spire: Spire, federated: Broker
) -> None:
    examined = auditor.broker("doctor", "identity")
    assert examined.returncode == 0 and f"its certificate is of {TRUST_DOMAIN}" in examined.stdout, examined.stdout
    # Not named, it is its own, which our broker is not of; and of a third one there is no bundle.
    assert auditor.run("login", BROKER_TRUST_DOMAIN="") == {"reason": Reason.BROKER_UNTRUSTED}
    lost = auditor.broker("doctor", "identity", BROKER_TRUST_DOMAIN="third.example.net")
    assert lost.returncode == 1 and Reason.BROKER_BUNDLE_MISSING in lost.stdout, lost.stdout
    assert f"{PARTNER}, {TRUST_DOMAIN}" in lost.stdout and "-federatesWith" in lost.stdout, lost.stdout
    # Its own authority has our broker's id and name signed.
    broker_id = spire.id(BROKER_PATH)
    for authority, believed in ((spire, True), (partner, False)):
        with serving(signed_by(authority, broker_id, SERVER_NAME)) as address:
            assert doctors_word_on_the_broker(auditor, address) is believed


def test_the_partners_authority_makes_nobody_of_ours(
    partner: Spire, federated: Broker, spire: Spire, directory: Path, agent_program: Callable[[str], Program]
) -> None:
    """Whoever has taken over the partner's SPIRE signs what he likes. Only its signer tells the two SVIDs apart."""
    program = agent_program("forger")

    def whoami_signed_by(authority: Spire) -> tuple[int, str]:
        shown = options(signed_by(authority, RECONCILER), spire.server.bundle(), directory / authority.trust_domain)
        done = program.broker(*shown, "--address", federated.address, "whoami")
        return done.returncode, done.stdout + done.stderr

    code, told = whoami_signed_by(spire)
    assert code == 0 and RECONCILER in told, told
    code, told = whoami_signed_by(partner)
    assert code == 3 and Reason.SVID_CHAIN_INVALID in told, told
    refused = federated.audit(EventType.REQUEST_REFUSED)
    assert [record["data"]["reason"] for record in refused] == [Reason.SVID_CHAIN_INVALID]


def test_the_partners_authority_is_not_the_broker(
    partner: Spire, spire: Spire, agent_program: Callable[[str], Program], federated: Broker
) -> None:
    """Even to an agent to which SPIRE hands the partner's bundle beside its own."""
    program = agent_program("careful")
    spire.enrol("/agent/reconciler", program, federates_with=[PARTNER])
    broker_id = spire.id(BROKER_PATH)
    with serving(signed_by(spire, broker_id, SERVER_NAME)) as address:
        # Believed, so that it comes to a question, which nobody here can answer.
        done = program.broker("--address", address, "whoami")
        assert Reason.BROKER_UNTRUSTED not in done.stderr and done.returncode != 0, done.stderr
        assert doctors_word_on_the_broker(program, address) is True
    with serving(signed_by(partner, broker_id, SERVER_NAME)) as address:
        done = program.broker("--address", address, "whoami")
        assert done.returncode == 4 and Reason.BROKER_UNTRUSTED in done.stderr, done.stderr
        assert doctors_word_on_the_broker(program, address) is False


def test_what_spire_no_longer_hands_out_the_broker_no_longer_believes(
    spire: Spire, auditor: Program, federated: Broker
) -> None:
    roots = f'broker_bundle_roots{{trust_domain="{PARTNER}"}} 1.0'
    assert roots in federated.metrics()
    spire.server.part_from(PARTNER)
    end = time.monotonic() + PATIENCE
    while roots in federated.metrics():
        assert time.monotonic() < end
        time.sleep(0.1)
    assert auditor.run("login") == {"reason": Reason.SVID_CHAIN_INVALID}


def test_what_the_partners_spire_no_longer_hands_out_its_agent_no_longer_believes(
    partner: Spire, auditor: Program, federated: Broker
) -> None:
    partner.server.part_from(TRUST_DOMAIN)
    end = time.monotonic() + PATIENCE
    while (told := auditor.broker("whoami")).returncode != 4:
        assert time.monotonic() < end, told
    assert Reason.BROKER_BUNDLE_MISSING in told.stderr, told.stderr


def doctors_word_on_the_broker(program: Program, address: str) -> bool:
    examined = program.broker("--address", address, "doctor", "--format", "json")
    (step,) = (step for step in json.loads(examined.stdout) if step["step"] == "broker")
    return bool(step["ok"])
