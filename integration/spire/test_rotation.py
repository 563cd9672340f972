"""SVIDs of the agent and of the broker are renewed every few seconds, and no call notices."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import time
from collections.abc import Callable

from broker.dev.loopback import LOOPBACK
from integration.spire.brokers import TRUST_DOMAIN, Broker
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.upstreams import Upstreams
from tests.patience import PATIENCE

# Renewed after 1 to 3 s, by the arithmetic beside the broker's in conftest.py.
TTL_SECONDS = 14
# Enough for each to be renewed more than once.
BETWEEN_SECONDS = 8.0
LEAST_ROTATIONS = 3


class Beholder:
    """Sees, while time passes, which certificates the broker shows."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.shown: set[str] = set()

    def watch(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.shown.add(shown_certificate(self._broker.agents_port))
            time.sleep(0.5)

    def until_shown(self, certificates: int) -> None:
        """So many, each another one."""
        end = time.monotonic() + PATIENCE
        while len(self.shown) < certificates:
            assert time.monotonic() < end, self.shown
            self.watch(0.5)

    def until(self, roots: int) -> None:
        """The broker has that many roots of its own trust domain in force."""
        end = time.monotonic() + PATIENCE
        while f'broker_bundle_roots{{trust_domain="{TRUST_DOMAIN}"}} {roots}.0' not in self._broker.metrics():
            assert time.monotonic() < end, self._broker.metrics()
            self.watch(0.5)


def test_every_call_is_answered_while_both_ends_rotate_and_so_does_their_authority(
    spire: Spire, broker: Broker, agent_program: Callable[[str], Program], upstreams: Upstreams
) -> None:
    program = agent_program("rotating")
    spire.enrol("/agent/reconciler", program, ttl=TTL_SECONDS)
    beholder = Beholder(broker)
    before = upstreams.logins()
    with program.start("load", str(LEAST_ROTATIONS)) as load:
        assert load.stdin and load.stdout and load.stderr
        assert load.stdout.readline() == "under load\n", load.stderr.read()
        beholder.watch(BETWEEN_SECONDS)
        prepared = spire.server.prepare_authority("x509")
        beholder.until(roots=2)
        beholder.watch(BETWEEN_SECONDS / 4)
        replaced = spire.server.activate_authority("x509", prepared)
        beholder.watch(BETWEEN_SECONDS)
        spire.server.revoke_authority("x509", replaced)
        beholder.until(roots=1)
        beholder.watch(BETWEEN_SECONDS / 2)
        beholder.until_shown(LEAST_ROTATIONS + 1)
        output, errors = load.communicate()
    assert load.returncode == 0, errors
    told = json.loads(output.splitlines()[-1])
    assert told["failures"] == []
    # Not even one that only the SDK noticed.
    assert told["tries"] == told["calls"], told
    assert told["svids"] > LEAST_ROTATIONS and len(beholder.shown) > LEAST_ROTATIONS, (told, beholder.shown)
    assert told["calls"] > 100 and told["grants"] > LEAST_ROTATIONS, told
    # Issued and revoked, at the least, in one stream across all of it.
    assert told["events"] >= 2 * told["grants"], told
    assert upstreams.logins() <= before


def shown_certificate(port: int) -> str:
    """What the broker shows to anybody who begins a handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection((LOOPBACK, port), PATIENCE) as plain, context.wrap_socket(plain) as secure:
        der = secure.getpeercert(binary_form=True)
    assert der is not None
    return hashlib.sha256(der).hexdigest()
