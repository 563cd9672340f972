"""An agent that is let go: by SPIRE at the end of its SVID, by the broker at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from broker.clock import SystemClock
from broker.dev.files import write_private
from broker.errors import Reason
from integration.spire.brokers import Broker
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.upstreams import Upstreams
from tests.patience import Pauses

# Leaves time to see the agent accepted before, also where the machine stands still for seconds.
TTL_SECONDS = 20
# What the broker promises of its deny list, for calls and for leases.
AT_ONCE_SECONDS = 5.0


def test_after_its_entry_is_deleted_an_agent_is_refused_when_its_svid_ends(
    spire: Spire, agent_program: Callable[[str], Program]
) -> None:
    """SPIFFE has no revocation of SVIDs. The open connection outlives the SVID; the broker's patience does not."""
    program = agent_program("leaver")
    entry = spire.enrol("/agent/leaver", program, ttl=TTL_SECONDS)
    with program.until_refused() as leaving:
        spire.server.delete(entry)
        told = leaving.refused()
    assert told["reason"] == Reason.SVID_EXPIRED, told
    # Not one call was answered that was begun after its end, and none was refused before.
    assert told["answered"] <= told["notAfter"] <= told["refused"], told
    # And who comes anew has none to show.
    again = program.broker("whoami")
    assert again.returncode == 3 and Reason.SVID_MISSING in again.stderr, again.stderr


@pytest.fixture
def deny(broker: Broker) -> Iterator[Callable[[str], float]]:
    """Puts an id on the deny list, as an operator does, and tells when that was in force."""
    file = broker.deploy / "denied.yaml"

    def denied(spiffe_id: str) -> float:
        entry = {"spiffe_id": spiffe_id, "reason": "Its SVID was seen elsewhere.", "who": "sam"}
        since = SystemClock().now().strftime("%Y-%m-%dT%H:%M:%SZ")
        write_private(file, yaml.safe_dump({"denied": [{**entry, "since": since}]}))
        broker.reload()
        return SystemClock().now().timestamp()

    yield denied
    file.unlink(missing_ok=True)
    broker.reload()


def test_an_agent_on_the_deny_list_is_refused_at_once_and_its_login_is_gone(
    spire: Spire,
    agent_program: Callable[[str], Program],
    deny: Callable[[str], float],
    upstreams: Upstreams,
) -> None:
    """Its SVID is good for another hour."""
    program = agent_program("denied")
    spire.enrol("/agent/leaver", program)
    with program.until_refused() as leaving, Pauses() as pauses:
        assert leaving.login in upstreams.logins()
        since = deny(spire.id("/agent/leaver"))
        told = leaving.refused()
        assert told["reason"] == Reason.AGENT_DENIED and "Sam Lindqvist" in told["told"], told
        # Not one call was answered that was begun after it was in force.
        assert told["answered"] <= since, told
        assert told["notAfter"] - since > 60 * AT_ONCE_SECONDS, told
        while leaving.login in upstreams.logins():
            assert SystemClock().now().timestamp() - since - pauses.seconds < AT_ONCE_SECONDS
            time.sleep(0.1)
    # Why is between operators.
    assert "seen elsewhere" not in told["told"]
