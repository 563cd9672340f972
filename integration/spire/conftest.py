"""What the stories share: SPIRE, its programs, the upstreams; started once, and all of it gone afterwards."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from integration.spire.brokers import PARTNER, SERVER_NAME, TRUST_DOMAIN, Broker
from integration.spire.domain import Spire
from integration.spire.programs import Program
from integration.spire.upstreams import Upstreams
from tests.dev.watched import passable_directory
from tests.patience import until

BUILD = Path(__file__).parent / "binaries" / "build"
BROKER_PATH = "/broker"
# SPIRE dates an SVID back by 10 s and renews it when half of its whole life is left, give or take a tenth:
# with 20 s, after 3 to 7 s.
BROKER_TTL_SECONDS = 20


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Where everything writes. Nothing that was started may be left when it goes: who was told to end does."""
    with passable_directory() as place:
        yield place
        until(lambda: not _running_in(place))


@pytest.fixture(scope="session")
def binaries() -> Path:
    """spire-server and spire-agent; built if nobody did so before."""
    done = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip())


@pytest.fixture(scope="session")
def started(directory: Path, binaries: Path) -> Iterator[tuple[Spire, Upstreams]]:
    spire = Spire(binaries, directory / "prod", TRUST_DOMAIN)
    upstreams = Upstreams(directory / "upstreams")
    try:
        with ThreadPoolExecutor(2) as both:
            for starting in [both.submit(spire.start), both.submit(upstreams.start)]:
                starting.result()
        upstreams.let_in(spire.id(BROKER_PATH), lambda: spire.server.bundle("spiffe"))
        yield spire, upstreams
    finally:
        spire.stop()
        upstreams.stop()


@pytest.fixture(scope="session")
def spire(started: tuple[Spire, Upstreams]) -> Spire:
    """The broker's own trust domain."""
    return started[0]


@pytest.fixture(scope="session")
def upstreams(started: tuple[Spire, Upstreams]) -> Upstreams:
    return started[1]


def _running_in(place: Path) -> list[list[str]]:
    """The command lines of processes that have to do with ``place``: servers, keepers and programs alike."""
    lines = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if any(str(place) in word for word in line)]


@pytest.fixture(scope="session")
def partner(directory: Path, binaries: Path) -> Iterator[Spire]:
    """Somebody else's SPIRE, for somebody else's trust domain."""
    other = Spire(binaries, directory / "partner", PARTNER)
    try:
        other.start()
        yield other
    finally:
        other.stop()


@pytest.fixture(scope="session")
def broker(directory: Path, spire: Spire, upstreams: Upstreams) -> Iterator[Broker]:
    """The broker most stories share. Its own SVID comes from SPIRE, and is renewed all the time."""
    program = spire.program("brokerd")
    spire.enrol(BROKER_PATH, program, dns=[SERVER_NAME], ttl=BROKER_TTL_SECONDS)
    made = Broker(directory / "broker", [str(program.path), "-m", "broker.daemon"], upstreams.environment())
    made.configure({"workload_api": spire.agent.endpoint})
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture(scope="session")
def agent_program(spire: Spire, broker: Broker) -> Callable[[str], Program]:
    """A program that knows where broker and Workload API are; not enrolled yet."""
    return lambda name: spire.program(name, {"BROKER_ADDRESS": broker.address})
