"""Real servers for whole test sessions: one PostgreSQL and one configured OpenBao per pytest process.

Beside them the doubles that more than one folder of tests uses: a session has one of each, whoever asks for it. What
they are made with is imported when one is asked for, because most sessions ask for none.

With pytest-xdist every worker has its own pair (nothing is shared, so nothing is to be locked); a
worker that needs neither starts neither.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import hvac
import psycopg
import pytest

from broker.dev.openbao import OpenBaoFacts, OpenBaoServer
from broker.dev.openbao_database import DatabaseEngineFacts, configure_database
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.secret import Secret
from tests import once, whole_run

if TYPE_CHECKING:
    from broker.connectors.postgresql_session import PostgresqlSettings
    from tests.connectors.kubernetes_double import Cluster


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--oldest-postgres", action="store_true", help="the oldest PostgreSQL that is at hand, and its tests alone"
    )


def pytest_configure(config: pytest.Config) -> None:
    whole_run.temporary_files_in_memory(config)
    whole_run.no_chatter_of_grpc()
    whole_run.interrupts_as_at_a_terminal()
    whole_run.no_grammars()
    whole_run.sources_compiled_once(config)
    whole_run.ports_of_its_own(config)
    whole_run.examples_at_any_speed()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--oldest-postgres"):
        whole_run.keep_those_of_postgres(config, items)
    whole_run.put_long_modules_first(items)
    whole_run.fewer_examples(config, items)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    with whole_run.garbage_left_alone():
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def made_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        once.make_once(monkeypatch)
        yield


@dataclass(frozen=True)
class ConfiguredOpenBao:
    """A running OpenBao whose database engine makes logins of the database ``orders``."""

    facts: OpenBaoFacts
    database: DatabaseEngineFacts

    def root_client(self) -> hvac.Client:
        return self.facts.root_client()

    def broker_client(self) -> hvac.Client:
        return self.database.broker_client()


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Iterator[PostgresFacts]:
    """A real PostgreSQL 18 on loopback, or with --oldest-postgres 16; yields its facts."""
    # So that a login can try what outlives its session.
    # The ledger takes no server whose commits would not last; the files are in memory, so that costs nothing.
    durable = {"fsync": "on", "full_page_writes": "on"}
    # Tests log in some thousand times, and a client's part of SCRAM is this many hashes, which nobody here is to guess.
    quick = {"scram_iterations": "1"}
    oldest = bool(pytestconfig.getoption("--oldest-postgres"))
    directory = tmp_path_factory.mktemp("postgres")
    server = PostgresServer(directory, oldest=oldest, max_prepared_transactions="8", **durable, **quick)
    try:
        facts = server.start()
        with psycopg.connect(facts.conninfo(), autocommit=True) as session:
            session.execute(f"ALTER ROLE {facts.superuser} PASSWORD '{facts.password.reveal()}'".encode())
        yield facts
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def openbao_server(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresFacts
) -> Iterator[ConfiguredOpenBao]:
    """A real OpenBao with the database engine, the demo's two roles and a broker's token; yields its facts."""
    target = create_orders(postgres_server, Secret("orders-administrator"))
    directory = tmp_path_factory.mktemp("openbao")
    server = OpenBaoServer(directory)
    try:
        facts = server.start()
        yield ConfiguredOpenBao(facts, configure_database(facts, target, token_file=directory / "broker.token"))
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def another_openbao(
    tmp_path_factory: pytest.TempPathFactory, openbao_server: ConfiguredOpenBao
) -> Iterator[ConfiguredOpenBao]:
    """A second real OpenBao, set up like the first and for the same database: another cluster."""
    directory = tmp_path_factory.mktemp("another-openbao")
    server = OpenBaoServer(directory)
    try:
        facts, target = server.start(), openbao_server.database.target
        yield ConfiguredOpenBao(facts, configure_database(facts, target, token_file=directory / "broker.token"))
    finally:
        server.destroy()


@pytest.fixture(scope="session")
def shop(postgres_server: PostgresFacts) -> PostgresqlSettings:
    """A database that is set up for a connector of kind ``postgresql``; yields how that reaches it."""
    from tests.connectors.harness_postgresql import create_shop

    return create_shop(postgres_server)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A double of the Kubernetes API."""
    from tests.connectors.kubernetes_double import kubernetes_double

    with kubernetes_double() as running:
        yield running


@pytest.fixture(scope="session")
def aws_double() -> Iterator[str]:
    """moto in a thread: a double that enforces neither policies nor trust; yields its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()
