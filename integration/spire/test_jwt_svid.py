"""An agent behind a proxy that ends TLS: it is known by its JWT-SVID, and the proxy by an X.509-SVID."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.dev.loopback import LOOPBACK, free_port
from broker.errors import Reason
from integration.spire.brokers import SERVER_NAME, Broker
from integration.spire.conftest import BROKER_PATH
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.upstreams import Upstreams
from tests.patience import PATIENCE, until

# The broker's own id: what a token for it says it is for.
AUDIENCE = "spiffe://prod.example.org/broker"
# By this name agents know a proxy's certificate, as they know the broker's.
EDGE = "edge"
ALLOWED, SECOND, UNLISTED = "/proxy/one", "/proxy/two", "/proxy/unlisted"


@dataclass(frozen=True)
class Listening:
    """A broker with a listener for proxies."""

    broker: Broker
    proxies: str


@pytest.fixture(scope="module")
def listening(directory: Path, spire: Spire, upstreams: Upstreams) -> Iterator[Listening]:
    program = spire.program("broker-for-proxies")
    spire.enrol(BROKER_PATH, program, dns=[SERVER_NAME])
    made = Broker(directory / "for-proxies", [str(program.path), "-m", "broker.daemon"], upstreams.environment())
    listener = f"{LOOPBACK}:{free_port()}"
    made.configure(
        {"workload_api": spire.agent.endpoint},
        listen={"proxies": listener},
        proxies={
            "allow": [spire.id(ALLOWED), spire.id(SECOND)],
            "audience": AUDIENCE,
        },
    )
    made.start()
    try:
        yield Listening(made, listener)
    finally:
        made.stop()


@dataclass(frozen=True)
class Proxy:
    """A running proxy."""

    address: str
    seen: Path

    def saw(self, text: object) -> bool:
        """Whether ``text`` passed, in any message."""
        return str(text).encode() in self.seen.read_bytes()


Proxies = Callable[[str], AbstractContextManager[Proxy]]


@pytest.fixture(scope="module")
def proxy(spire: Spire, listening: Listening, directory: Path) -> Proxies:
    """Runs a proxy enrolled as the given path."""
    enrolled: dict[str, Program] = {}

    @contextmanager
    def running(path: str) -> Iterator[Proxy]:
        name = path.strip("/").replace("/", "-")
        if path not in enrolled:
            enrolled[path] = spire.program(name)
            spire.enrol(path, enrolled[path], dns=[EDGE])
        program, seen = enrolled[path], directory / f"{name}.seen"
        with program.start("proxy", listening.proxies, SERVER_NAME, str(seen)) as process:
            assert process.stdin and process.stdout and process.stderr
            port = process.stdout.readline().strip()
            try:
                assert port, process.stderr.read()
                yield Proxy(f"{LOOPBACK}:{port}", seen)
            finally:
                process.stdin.close()
                _ended(process)

    return running


def _ended(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        raise


@pytest.fixture(scope="module")
def agent(spire: Spire) -> Program:
    program = spire.program("behind-a-proxy")
    spire.enrol("/agent/reconciler", program)
    return program


def test_an_agent_behind_a_proxy_logs_in_and_the_proxy_need_not_learn_how(
    agent: Program, proxy: Proxies, spire: Spire, upstreams: Upstreams
) -> None:
    with proxy(ALLOWED) as way:
        sealed = agent.run("login", **through(way))
        clear = agent.run("login", "clear", **through(way))
        for told in (sealed, clear):
            assert told["spiffeId"] == spire.id("/agent/reconciler") and told["orders"], told
            assert told["leases"] == ["REVOKED"] and told["login"] not in upstreams.logins()
        # The two differ in whose eyes they were for.
        assert not way.saw(sealed["password"]) and way.saw(clear["password"])

        for_another = agent.run("login", **through(way, audience="spiffe://prod.example.org/ledger"))
        assert for_another == {"reason": Reason.JWT_SVID_AUDIENCE}

        # SPIRE hands out the same token again until it is old, so this is the very token that was shown above.
        with proxy(SECOND) as other:
            assert agent.run("login", **through(other)) == {"reason": Reason.JWT_SVID_OF_ANOTHER_PROXY}


def test_a_new_signing_key_of_spire_is_followed(spire: Spire, proxy: Proxies) -> None:
    """The program comes after the key, so that its token is not one that the SPIFFE agent had already.

    Its own SPIFFE agent may know the new key some seconds before brokerd's does: until then it is refused.
    """
    spire.server.activate_authority("jwt", spire.server.prepare_authority("jwt"))
    program = spire.program("after-the-key")
    spire.enrol("/agent/leaver", program)
    with proxy(ALLOWED) as way:

        def followed() -> dict[str, object] | None:
            answer = program.run("login", **through(way))
            return None if answer == {"reason": Reason.JWT_SVID_KEY_UNKNOWN} else answer

        told = until(followed)
        assert told is not None and told.get("spiffeId") == spire.id("/agent/leaver"), told


def test_a_proxy_that_nobody_named_brings_nobody(agent: Program, proxy: Proxies) -> None:
    with proxy(UNLISTED) as way:
        assert agent.run("login", **through(way)) == {"reason": Reason.PROXY_NOT_ALLOWED}


def test_a_token_is_no_second_way_in(agent: Program, listening: Listening) -> None:
    """Neither at the agents' listener, nor from an agent that is no proxy."""
    agents = {"BROKER_ADDRESS": listening.broker.address, "BROKER_AUDIENCE": AUDIENCE}
    assert agent.run("login", **agents) == {"reason": Reason.JWT_SVID_UNEXPECTED}
    assert agent.run("login", **{**agents, "BROKER_ADDRESS": listening.proxies}) == {"reason": Reason.PROXY_NOT_ALLOWED}


def through(way: Proxy, audience: str = AUDIENCE) -> dict[str, str]:
    """The environment of an agent behind this proxy."""
    return {"BROKER_ADDRESS": way.address, "BROKER_SERVER_NAME": EDGE, "BROKER_AUDIENCE": audience}
