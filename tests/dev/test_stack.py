"""The whole stack: started, used as an agent and as the broker would, restarted, crashed, and gone."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg
import pytest
from cryptography import x509
from spiffe import X509Source

from broker.clock import SystemClock
from broker.dev import openbao_jwt
from broker.dev.files import remove_directory
from broker.dev.openbao import client_for
from broker.dev.stack import BROKER_DNS_NAME, BROKER_ID
from broker.errors import InvalidInput, NotReady, UpstreamFailed
from broker.workloadapi.jwt_svids import JwtSvids
from tests.dev.small_stack import READY, REPORTER, make_stack
from tests.dev.test_process import eventually, has_ended
from tests.patience import PATIENCE

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]


def started_under(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def started_beside(before: set[int]) -> list[psutil.Process]:
    """Whom this process has started since, with all of theirs: others' servers start processes, too, at any time."""
    since = [child for child in psutil.Process().children() if child.pid not in before]
    return [each for child in since for each in (child, *_children_of(child))]


def _children_of(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def names_of(processes: list[psutil.Process]) -> set[str]:
    """Without those that have ended: PostgreSQL has some that come and go."""
    found = set()
    for each in processes:
        with suppress(psutil.NoSuchProcess):
            found.add(each.name())
    return found


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "state"
    yield directory
    for part in ("agents", "postgres/cluster"):
        remove_directory(directory / part)


@pytest.mark.slow
async def test_its_life(state: Path) -> None:
    before = {process.pid for process in psutil.Process().children()}
    stack = make_stack(state)
    with pytest.raises(NotReady):
        stack.facts()
    facts = await stack.start()
    assert {"postgres", "bao"} <= names_of(started_beside(before))

    # An agent gets its SVID; the broker its own, for its DNS name, of the same trust domain.
    certificate = None
    for endpoint, spiffe_id in ((facts.endpoints[REPORTER], REPORTER), (facts.broker_endpoint, BROKER_ID)):
        source = await asyncio.to_thread(X509Source, socket_path=endpoint, timeout_in_seconds=PATIENCE)
        svid = source.get_x509_context().default_svid
        assert str(svid.spiffe_id) == str(spiffe_id)
        certificate = svid.leaf
        await asyncio.to_thread(source.close)
    assert certificate is not None
    names_in_it = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names_in_it.get_values_for_type(x509.UniformResourceIdentifier) == [str(BROKER_ID)]
    store = x509.verification.Store(x509.load_pem_x509_certificates(facts.bundle.read_bytes()))
    server = x509.verification.PolicyBuilder().store(store).time(datetime.now(UTC))
    assert server.build_server_verifier(x509.DNSName(BROKER_DNS_NAME)).verify(certificate, [])

    # The broker gets in with its JWT-SVID; the double of AWS has the role.
    with psycopg.connect(facts.postgres.conninfo("orders")) as admin:
        assert admin.execute("SELECT count(*) FROM orders").fetchone() == (5,)
    svids = JwtSvids(facts.broker_endpoint, SystemClock().now)
    held = await asyncio.to_thread(svids.token, openbao_jwt.AUDIENCE)
    body = {"role": openbao_jwt.ROLE, "jwt": held.token.reveal()}
    svids.close()
    entered = client_for(facts.openbao.address, None).write_data(f"auth/{openbao_jwt.MOUNT}/login", data=body)
    assert entered["auth"]["policies"] == ["jit-broker"]
    with pytest.raises(NotReady):
        facts.openbao.broker_token()
    assert list(facts.aws.role_arns) == ["orders-reports-reader"]

    # brokerd got what its deploy files refer to, and nothing of ours; restarted, by force too, it comes back.
    notes = json.loads((state / "notes.json").read_text())
    assert notes["BROKER_DEV_POSTGRES_PORT"] == str(facts.postgres.port)
    assert not [name for name in notes if "TOKEN" in name]
    assert set(notes) - {"PATH", "HOME", "LC_CTYPE"} == set(facts.broker_environment())
    await stack.restart_brokerd(kill=True, environment={"BROKER_DEV_OPENBAO_ADDR": "http://127.0.0.1:1"})
    notes = json.loads((state / "notes.json").read_text())
    assert notes["BROKER_DEV_OPENBAO_ADDR"] == "http://127.0.0.1:1"

    # A second one cannot take the same state.
    with pytest.raises(InvalidInput, match="in use by another process"):
        await make_stack(state).start()

    every = started_beside(before)
    await stack.stop()
    await stack.stop()
    assert [process for process in every if not has_ended(process)] == []
    assert list((state / "agents").glob("*.sock")) == []
    # What others could read: port numbers, and what the stand-in wrote.
    exposed = {path.name for path in state.rglob("*") if path.is_file() and path.stat().st_mode & 0o077}
    assert exposed == {"port", "cluster_port", "api_port", "admin_port", "ops_port", "notes.json"}


class Stack:
    """A stack in a process of its own, on one state; both are used in whatever condition the test before left them."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self._runner: subprocess.Popen[str] | None = None

    def running(self) -> subprocess.Popen[str]:
        """The one that runs, or, if the last was ended, a new one that is ready."""
        if self._runner is None or self._runner.poll() is not None:
            self.end()
            command = [sys.executable, "-m", "tests.dev.small_stack", str(self.state)]
            self._runner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
            assert self._runner.stdout is not None
            assert self._runner.stdout.readline() == READY
        return self._runner

    def end(self) -> None:
        if self._runner is not None:
            self._runner.kill()
            self._runner.communicate()
            self._runner = None


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("lasting") / "state")
    yield stack
    stack.end()
    remove_directory(stack.state / "postgres/cluster")


@pytest.mark.slow
def test_after_a_crash_that_took_the_keepers_too_it_starts_again(stack: Stack) -> None:
    crashed = stack.running()
    first = started_under(crashed.pid)
    keepers = [each for each in psutil.Process(crashed.pid).children() if "keeper.py" in " ".join(each.cmdline())]
    assert len(keepers) == 4  # PostgreSQL's, OpenBao's, moto's, brokerd's
    servers = [server for process in keepers for server in process.children()]
    assert {"postgres", "bao"} <= names_of(servers)
    for process in keepers:
        process.kill()
    crashed.kill()
    crashed.wait()
    assert [process for process in servers if has_ended(process)] == []
    assert stack.running() is not crashed
    assert eventually(lambda: all(map(has_ended, first)))


@pytest.mark.slow
def test_killed_alone_it_leaves_nothing(stack: Stack) -> None:
    killed = stack.running()
    processes = started_under(killed.pid)
    assert {"postgres", "bao"} <= names_of(processes)
    killed.kill()
    killed.wait()
    assert eventually(lambda: all(map(has_ended, processes)))


@pytest.mark.slow
def test_a_signal_ends_it_in_order(stack: Stack) -> None:
    """SIGTERM; Ctrl-C is in test_dev_command.py."""
    told = stack.running()
    processes = started_under(told.pid)
    assert {"postgres", "bao"} <= names_of(processes)
    told.send_signal(signal.SIGTERM)
    assert told.wait(PATIENCE) == 0
    assert [process for process in processes if not has_ended(process)] == []


@pytest.mark.slow
async def test_a_brokerd_that_fails_is_told_and_takes_the_rest_with_it(stack: Stack) -> None:
    stack.end()
    before = {process.pid for process in psutil.Process().children()}
    failing = make_stack(stack.state, ("/bin/sh", "-c", "echo unknown key: colour; exit 2"))
    with pytest.raises(UpstreamFailed, match="unknown key: colour"):
        await failing.start()
    assert [process for process in started_beside(before) if not has_ended(process)] == []
    await failing.destroy()
    assert not stack.state.exists()
