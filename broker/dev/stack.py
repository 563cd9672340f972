"""Everything a broker needs, started together in one state directory, and brokerd on top of it.

Belongs here: order, names and addresses. What a part is, and how it starts, is its own module's.

Everything listens on loopback or on 0600 sockets. Whatever ends this process, nothing it started
lives on: an orderly :meth:`DevStack.stop`; the keepers, if it is killed; the pid files, read at the
next start, if even those were.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from broker.dev.aws_double import AwsDouble, AwsFacts
from broker.dev.brokerd import BROKERD, BrokerdProcess
from broker.dev.files import private_directory, remove_directory, secret_file, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.minio import BROKER_USER, MinioFacts, MinioServer
from broker.dev.openbao import OpenBaoServer
from broker.dev.openbao_database import DatabaseEngineFacts, configure_database
from broker.dev.openbao_jwt import configure_jwt
from broker.dev.orders import create_orders
from broker.dev.postgres import PostgresFacts, PostgresServer
from broker.dev.state import StateDirectory
from broker.dev.trust_domain import TrustDomain
from broker.dev.workload_api import WorkloadApiSockets
from broker.errors import NotReady, Reason
from broker.identity.spiffe_id import SpiffeId
from broker.keys import new_key
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.dev.identity_provider import IdentityProvider
    from broker.identity.agent import Person
    from broker.ports.clock import Clock

TRUST_DOMAIN = "dev.broker.internal"
BROKER_ID = SpiffeId(TRUST_DOMAIN, "/broker")
# What TLS clients check: stock gRPC matches a server's DNS name, never its SPIFFE ID.
BROKER_DNS_NAME = "broker.dev.broker.internal"
AWS_ROLES = ("orders-reports-reader",)
_NOWHERE = f"http://{LOOPBACK}:9"  # discard (RFC 863): nobody listens there


@dataclass(frozen=True, slots=True)
class DevFacts:
    """Every address, path and secret's file of a running stack: what a configuration is written from."""

    state: Path
    deploy: Path
    trust_domain: str
    broker_id: SpiffeId
    broker_dns_name: str
    api_port: int
    admin_port: int
    ops_port: int
    bundle: Path
    ledger: Path
    mac_key: Path
    config: Path
    openbao: DatabaseEngineFacts
    postgres: PostgresFacts
    aws: AwsFacts
    minio: MinioFacts | None  # None: its binary was not built
    # Where brokerd has its own SVIDs from; of each agent, what goes into SPIFFE_ENDPOINT_SOCKET.
    broker_endpoint: str
    endpoints: Mapping[SpiffeId, str]
    # Where people log in (dev/identity_provider.py), and how people.yaml names it; empty where there are no people.
    issuer: str
    issuer_known_as: str

    @property
    def admin_address(self) -> str:
        """host:port of the people's service."""
        return f"{LOOPBACK}:{self.admin_port}"

    @property
    def api_address(self) -> str:
        """host:port of the agents' service."""
        return f"{LOOPBACK}:{self.api_port}"

    def broker_environment(self) -> dict[str, str]:
        """What brokerd's deploy files refer to as ``env:NAME``. Holds secrets: for a process, not for a screen."""
        target = self.openbao.target
        return {
            "BROKER_DEV_OPENBAO_ADDR": self.openbao.address,
            "BROKER_DEV_POSTGRES_HOST": target.host,
            "BROKER_DEV_POSTGRES_PORT": str(target.port),
            "BROKER_DEV_POSTGRES_DATABASE": target.database,
            "BROKER_DEV_AWS_ENDPOINT": self.aws.endpoint,
            "BROKER_DEV_AWS_ACCESS_KEY_ID": self.aws.access_key_id,
            "BROKER_DEV_AWS_SECRET_ACCESS_KEY": self.aws.secret_access_key.reveal(),
            "BROKER_DEV_MINIO_USER": BROKER_USER,
            # Without MinIO its connector is there all the same, and whoever asks hears that it does not answer.
            "BROKER_DEV_MINIO_ENDPOINT": _NOWHERE if self.minio is None else self.minio.endpoint,
            "BROKER_DEV_MINIO_SECRET_KEY": "none" if self.minio is None else self.minio.broker_secret.reveal(),
        }


class DevStack:
    """The stack of ``state_dir``, for the agents in ``agents``, with the operators' files in ``deploy_dir``.

    ``people`` are those of people.yaml; the development identity provider knows the ones of the first one's issuer.
    Without any there is no people's door.

    ``state_dir`` may be a :class:`StateDirectory` that the caller acquired, to put something there first; the stack
    releases it when it stops. ``minio`` is MinIO's binary, where it was built. ``render_config`` writes brokerd's
    configuration from the facts. ``brokerd_command`` is for tests.
    """

    def __init__(
        self,
        state_dir: Path | StateDirectory,
        deploy_dir: Path,
        *,
        agents: Sequence[SpiffeId],
        people: Sequence[Person] = (),
        clock: Clock,
        render_config: Callable[[DevFacts], str],
        brokerd_command: Sequence[str] = BROKERD,
        minio: Path | None = None,
    ) -> None:
        self._state = StateDirectory(state_dir) if isinstance(state_dir, Path) else state_dir
        self._deploy = deploy_dir.absolute()
        self._agents = tuple(agents)
        self._people = tuple(people)
        self._clock = clock
        self._render_config = render_config
        self._brokerd_command = brokerd_command
        self._minio = minio
        self._facts: DevFacts | None = None
        self._brokerd: BrokerdProcess | None = None
        self._sockets: WorkloadApiSockets | None = None
        self._provider: IdentityProvider | None = None
        # What undoes each step that was done, the last one first.
        self._undo = contextlib.AsyncExitStack()

    def facts(self) -> DevFacts:
        """Facts of the running stack. Raises :class:`NotReady` before :meth:`start`."""
        if self._facts is None:
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, "The development stack is not running.")
        return self._facts

    @property
    def identity_provider(self) -> IdentityProvider:
        """Where people log in, without HTTP. Raises :class:`NotReady` where it is not running."""
        if self._provider is None:
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, "The development identity provider is not running.")
        return self._provider

    async def start(self) -> DevFacts:
        """Start everything; returns when brokerd is ready. If a part fails, what had started is stopped."""
        try:
            return await self._start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop everything, brokerd first. State stays. Twice is the same as once."""
        self._facts = None
        await self._undo.aclose()

    async def destroy(self) -> None:
        """Stop everything and remove the state directory."""
        await self.stop()
        for part in ("agents", "postgres/cluster"):
            remove_directory(self._state.path / part)
        remove_directory(self._state.path)

    async def run_until_signal(self, ready: Callable[[DevFacts], None]) -> None:
        """Start, call ``ready``, and stop at SIGINT or SIGTERM: the life of ``broker dev``."""
        loop, told = asyncio.get_running_loop(), asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, told.set)
        try:
            facts = await self.start()
            if not told.is_set():
                ready(facts)
            await told.wait()
        finally:
            await self.stop()
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def restart_brokerd(self, *, kill: bool = False, environment: Mapping[str, str] | None = None) -> None:
        """Stop brokerd (``kill``: with SIGKILL) and start it again; ``environment`` overrides single variables."""
        await self.stop_brokerd(kill=kill)
        await self.start_brokerd(environment)

    async def stop_brokerd(self, *, kill: bool = False) -> None:
        """Stop brokerd alone, or with ``kill`` end it as a crash would; the rest runs on."""
        brokerd = self._running_brokerd()
        await asyncio.to_thread(brokerd.kill if kill else brokerd.stop)

    async def start_brokerd(self, environment: Mapping[str, str] | None = None) -> None:
        """Start brokerd again after :meth:`stop_brokerd`; ``environment`` overrides single variables."""
        merged = {**self.facts().broker_environment(), **(environment or {})}
        await asyncio.to_thread(self._running_brokerd().start, merged)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _start(self) -> DevFacts:
        self._state.acquire()
        self._undo.callback(self._state.release)
        state = self._state.path
        config, ledger = state / "brokerd.yaml", private_directory(state / "ledger") / "ledger.sqlite3"
        api_port, admin_port, ops_port = (free_port(state / f"{name}_port") for name in ("api", "admin", "ops"))
        brokerd = BrokerdProcess(state, config, ops_port, self._brokerd_command)
        brokerd.stop_leftover()  # before its upstreams restart under it
        domain = TrustDomain.load(TRUST_DOMAIN, state / "trust-domain", self._clock.now())
        postgres, openbao, aws, minio = await self._start_upstreams(state, domain)
        bundle = state / "bundle.pem"
        write_private(bundle, domain.bundle_pem.decode())
        sockets = await self._start_identities(state, domain)
        issuer, known_as = await self._start_provider(state)
        mac_key = state / "mac.key"
        if not mac_key.exists():
            write_private(mac_key, new_key())
        self._facts = DevFacts(
            state=state,
            deploy=self._deploy,
            trust_domain=TRUST_DOMAIN,
            broker_id=BROKER_ID,
            broker_dns_name=BROKER_DNS_NAME,
            api_port=api_port,
            admin_port=admin_port,
            ops_port=ops_port,
            bundle=bundle,
            ledger=ledger,
            mac_key=mac_key,
            config=config,
            openbao=openbao,
            postgres=postgres,
            aws=aws,
            minio=minio,
            broker_endpoint=sockets.endpoint(BROKER_ID),
            endpoints={agent: sockets.endpoint(agent) for agent in self._agents},
            issuer=issuer,
            issuer_known_as=known_as,
        )
        write_private(config, self._render_config(self._facts))
        self._brokerd = brokerd
        self._undo.push_async_callback(asyncio.to_thread, brokerd.stop)
        await self.start_brokerd()
        return self._facts

    async def _start_upstreams(
        self, state: Path, domain: TrustDomain
    ) -> tuple[PostgresFacts, DatabaseEngineFacts, AwsFacts, MinioFacts | None]:
        """PostgreSQL, OpenBao, moto and perhaps MinIO at the same time, then OpenBao's configuration."""
        postgres = PostgresServer(state / "postgres")
        openbao = OpenBaoServer(state / "openbao")
        aws = AwsDouble(state / "aws", AWS_ROLES)
        minio = None if self._minio is None else MinioServer(self._minio, state / "minio")
        for stop in (postgres.stop, openbao.stop, aws.stop, *([] if minio is None else [minio.stop])):
            self._undo.push_async_callback(asyncio.to_thread, stop)
        starting = (
            asyncio.create_task(asyncio.to_thread(postgres.start)),
            asyncio.create_task(asyncio.to_thread(openbao.start)),
            asyncio.create_task(asyncio.to_thread(aws.start)),
            asyncio.create_task(asyncio.to_thread(lambda: None if minio is None else minio.start())),
        )
        await _settled(starting)
        postgres_facts, openbao_facts = starting[0].result(), starting[1].result()
        password = Secret(secret_file(state / "postgres" / "openbao.password"))
        target = await asyncio.to_thread(create_orders, postgres_facts, password)
        engine = await asyncio.to_thread(configure_database, openbao_facts, target, token_file=None)
        await asyncio.to_thread(configure_jwt, openbao_facts, domain, BROKER_ID)
        return postgres_facts, engine, starting[2].result(), starting[3].result()

    async def _start_identities(self, state: Path, domain: TrustDomain) -> WorkloadApiSockets:
        """A Workload API socket for brokerd, and one for each agent."""
        sockets = WorkloadApiSockets(
            domain,
            (BROKER_ID, *self._agents),
            state / "agents",
            self._clock,
            dns_names={BROKER_ID: (BROKER_DNS_NAME,)},
        )
        self._undo.push_async_callback(sockets.stop)
        await sockets.start()
        return sockets

    async def _start_provider(self, state: Path) -> tuple[str, str]:
        """The development identity provider: where it listens, and how people.yaml names it."""
        if not self._people:
            return "", ""
        # Imported here: a stack without people starts without an HTTP server.
        from broker.dev.identity_provider import IdentityProvider
        from broker.dev.identity_provider_http import IdentityProviderServer

        url, known_as = f"http://{LOOPBACK}:{free_port(state / 'oidc_port')}", self._people[0].issuer
        provider = IdentityProvider(url, (each for each in self._people if each.issuer == known_as), self._clock)
        server = IdentityProviderServer(provider, self._clock)
        self._undo.push_async_callback(server.stop)
        await server.start()
        self._provider = provider
        return url, known_as

    def _running_brokerd(self) -> BrokerdProcess:
        if self._brokerd is None:
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, "The development stack is not running.")
        return self._brokerd


async def _settled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait until every task has ended, also when cancelled meanwhile; then raise what the first to fail raised.

    A thread cannot be cancelled: what it starts must be known before it can be stopped.
    """
    try:
        await asyncio.wait(tasks)
    except asyncio.CancelledError:
        await asyncio.wait(tasks)
        raise
    failures = [failure for task in tasks if (failure := task.exception()) is not None]
    if failures:
        first, *others = failures
        for other in others:
            first.add_note(f"Also: {other}")
        raise first
