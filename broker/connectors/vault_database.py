"""Logins of a SQL database, made by the database engine of Vault or OpenBao (kind ``vault-database``).

How it is issued and ended is ``vault_engine.py``'s; here the lease is shortened afterwards, so that the login's
``VALID UNTIL`` agrees with the token's end.

What the operator must have set up (``broker/dev/openbao_database.py`` is the recipe, run): a mount
whose roles belong to the broker alone, because the sweep ends every lease there that the ledger does
not know; a ``username_template`` with ``{{.DisplayName}}``, so that the login carries the attempt's
id; a token role that makes orphans; one policy per role.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from broker.connectors.postgresql_use import log_in
from broker.connectors.threads import being_replaced
from broker.connectors.vault_calls import AttemptToken, BrokerToken
from broker.connectors.vault_database_examiner import DatabaseExaminer
from broker.connectors.vault_engine import Made, VaultEngine
from broker.lease.credential import Binding, Contract, ContractClass, Credential, DatabaseLogin
from broker.ports.clock import Clock
from broker.ports.connectors import Doubt, Handle, Use
from broker.scope.model import Scope

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(seconds=1),
    ttl_ceiling=timedelta(hours=1),
    on_expiry=timedelta(seconds=5),
    on_revoke=timedelta(seconds=5),
    broker_dead="The upstream ends the login and its sessions when the attempt's token expires, by the TTL.",
    upstream_dead="The database refuses new logins 5 s after the TTL (VALID UNTIL); open sessions stay until the"
    " upstream is back.",
    on_broker_dead=timedelta(seconds=5),
    on_upstream_dead=None,  # of the open sessions
    wraps=True,
    gives=DatabaseLogin,
)


@dataclass(frozen=True, slots=True)
class VaultDatabaseSettings:
    """What the operator says about one such upstream. Times in seconds."""

    address: str
    mount: str
    engine: str  # the database product, told to agents: "postgresql"
    host: str
    port: int
    database: str
    token_role: str = "jit-attempt"  # noqa: S105 - a name, not a token
    policy_prefix: str = "jit-attempt-"  # before the role's name: the policy of that token
    ca_file: str | None = None
    namespace: str = ""
    timeout: float = 5.0
    threads: int = 8


class VaultDatabase(VaultEngine):
    """The connector."""

    what = "login"
    sets_end = True

    def __init__(self, name: str, settings: VaultDatabaseSettings, token: BrokerToken, clock: Clock) -> None:
        super().__init__(name, settings, token, clock)
        self._settings = settings

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: the upstream ends one login when asked, and says so."""
        return CONTRACT

    def make(self, handle: Handle, scope: Scope, token: AttemptToken, ttl: int) -> Made:
        """A fresh login. Its TTL is the role's until :meth:`set_end`: the engine takes none here."""
        login = self._calls.read_login(str(handle["mount"]), str(handle["role"]), token.token)
        settings = self._settings
        return Made(
            login.lease_id,
            DatabaseLogin(
                engine=settings.engine,
                host=settings.host,
                port=settings.port,
                database=settings.database,
                username=login.username,
                password=login.password,
            ),
            {"username": login.username},
            named=login.username,
        )

    def refuse_foreign(self, made: Made, handle: Handle, scope: Scope) -> None:
        """A login must carry the attempt's id."""
        login = made.credential
        if not isinstance(login, DatabaseLogin) or str(handle["attempt"]) not in login.username:
            raise self.mismatch(
                "the login does not carry the attempt's id",
                hint="Operators: the connection's username_template must contain {{.DisplayName}} in full.",
            )

    def set_end(self, made: Made, ttl: int) -> None:
        """Shorten the lease, so that the login's ``VALID UNTIL`` agrees."""
        told = self._calls.set_lease_end(made.lease_id, ttl)
        if not 0 < told <= ttl:
            raise self.mismatch(f"the login's lease ends in {told} s, asked were {ttl} s")

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Log in to the database and select a constant. Raises UpstreamFailed."""
        with self._closing.call():
            return await self._using.run(partial(log_in, self._name, credential, self._settings.timeout))

    async def examine(self) -> Sequence[Doubt]:
        """Whether OpenBao answers, what the broker may do there, and whether engine and roles are set up right."""
        if self._closing.closed:
            return [being_replaced()]
        settings = self._settings
        examiner = DatabaseExaminer(
            self._calls,
            settings.mount,
            settings.token_role,
            settings.policy_prefix,
            CONTRACT.ttl_ceiling,
            logs_in=self._logs_in,
        )
        with self._closing.call():
            doubts, goes_on = await self._examining.run(examiner.first)
            for part in examiner.parts() if goes_on else ():
                if self._closing.closed:  # whoever replaces it waits for calls under way
                    return [being_replaced()]
                doubts += await self._examining.run(partial(examiner.part, part))
        return doubts
