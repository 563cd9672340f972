"""Logins of a SQL database, made by the database engine of Vault or OpenBao (kind ``vault-database``).

Issuing, in this order: a token of the attempt's own, an orphan whose life is the TTL and cannot be
renewed; its accessor durably noted; the login read with it; the lease id durably noted; the lease
shortened, so that the login's ``VALID UNTIL`` agrees. Whatever dies in between, the upstream ends
the login when the token's time is over, and ``vault_sweep.py`` finds it sooner.

What the operator must have set up (``broker/dev/openbao_database.py`` is the recipe, run): a mount
whose roles belong to the broker alone, because the sweep ends every lease there that the ledger does
not know; a ``username_template`` with ``{{.DisplayName}}``, so that the login carries the attempt's
id; a token role that makes orphans; one policy per role.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.postgresql_use import log_in
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.connectors.vault_calls import AttemptToken, BrokerToken, Login, VaultCalls
from broker.connectors.vault_database_examiner import DatabaseExaminer
from broker.connectors.vault_http import VaultFailure
from broker.connectors.vault_login import JwtLogin
from broker.connectors.vault_sweep import LeaseEnder
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import Binding, Contract, ContractClass, Credential, DatabaseLogin
from broker.ports import Carried, Checkpoint, Clock, Doubt, Handle, Issued, NotYet, RevokeContext, RevokeOutcome, Use
from broker.scope.model import Scope

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z", re.ASCII)
# Display names are changed by the server unless they are letters, digits and hyphens.
_ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,47}\Z", re.ASCII)

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


class VaultDatabase:
    """The connector. ``token`` yields the broker's own token and is asked before every call, or is a login."""

    def __init__(self, name: str, settings: VaultDatabaseSettings, token: BrokerToken, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._calls = VaultCalls(
            settings.address,
            token,
            timeout=settings.timeout,
            threads=2 * settings.threads,
            ca_file=settings.ca_file,
            namespace=settings.namespace,
        )
        # Two pools: a storm of requests must not keep credentials from being ended.
        self._issuing = Threads(f"{name}-issue", settings.threads)
        self._revoking = Threads(f"{name}-revoke", settings.threads)
        self._using = Threads(f"{name}-use", 2)
        self._examining = Threads(f"{name}-examine", 1)
        self._logs_in = isinstance(token, JwtLogin)
        self._ender = LeaseEnder(name, self._calls, self._revoking)
        self._closing = Closing()

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: the upstream ends one login when asked, and says so."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime) -> Handle:
        """Names only. Raises InvalidInput for a grant or an attempt id that is no plain name."""
        role = scope.grant.get("role")
        if not isinstance(role, str) or not _NAME.match(role):
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"the grant of template {scope.template} names no database role.",
                hint="Operators: grant.role is a name of letters, digits, '.', '_' and '-'.",
                metadata={"template": scope.template},
            )
        if not _ATTEMPT.match(attempt_id):
            raise InvalidInput(
                Reason.SCOPE_TOO_LARGE,
                f"the attempt id {attempt_id!a} cannot be part of a login: it takes at most 48 letters, digits"
                f" and hyphens, this has {len(attempt_id)} characters.",
                metadata={"attempt": ascii(attempt_id)[:100], "length": str(len(attempt_id)), "limit": "48"},
            )
        return {"attempt": attempt_id, "mount": self._settings.mount, "role": role, "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A login until ``expires_at``, in whole seconds rounded down (but at least one).

        Raises UpstreamFailed, its outcome known only while no token can have been made, and whatever
        ``checkpoint`` raises.
        """
        begun = self._clock.now()
        ttl = self._whole_seconds(begun, expires_at)
        with self._closing.call():
            return await self._issue(handle, begun, ttl, checkpoint)

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End the login and its sessions, the token, and any login of this attempt that was never noted."""
        if self._closing.closed:
            return NotYet(f"{self._name} is being replaced.", failed=False)
        with self._closing.call():
            return await self._ender.end(handle, context)

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Log in to the database and select a constant. Raises UpstreamFailed."""
        with self._closing.call():
            return await self._using.run(partial(log_in, self._name, credential, self._settings.timeout))

    async def inventory(self) -> Sequence[Carried]:
        """Every living lease of the mount's logins. The mount is the broker's own, so each is ours by its place.

        A lease does not tell whose it is; by the login's name only the database could. Raises UpstreamFailed.
        """
        if self._closing.closed:
            raise self._not_begun(f"{self._name} is being replaced by a newer definition.", "Ask again.")
        try:
            with self._closing.call():
                return await self._ender.inventory(self._settings.mount, self._clock)
        except VaultFailure as failure:
            raise self._failed("list the leases of its mount", failure, first=True) from None

    async def tend(self) -> None:
        """Keep the broker's own token alive: renew it, or log in anew. Raises UpstreamFailed."""
        if self._closing.closed:
            return
        try:
            with self._closing.call():
                await self._revoking.run(self._calls.renew_own)
        except VaultFailure as failure:
            raise UpstreamFailed(
                Reason.UPSTREAM_ROOT_REFUSED if failure.status in (401, 403) else Reason.UPSTREAM_UNAVAILABLE,
                f"connector {self._name} could not renew the broker's own token: {failure.what}",
                hint="Operators: put a fresh token where the connector's `token` refers to, or look at its `jwt` role.",
                metadata={"connector": self._name},
            ) from None

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
                doubts += await self._examining.run(partial(examiner.part, part))
        return doubts

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads and connections."""
        await self._closing.close()
        await self._issuing.close()
        await self._revoking.close()
        await self._using.close()
        await self._examining.close()
        self._calls.close()

    # ------------------------------------------------------------------ the steps of issuing

    async def _issue(self, handle: Handle, begun: datetime, ttl: int, checkpoint: Checkpoint) -> Issued:
        mount, role, attempt = str(handle["mount"]), str(handle["role"]), str(handle["attempt"])
        token = await self._make_token(handle, ttl)
        handle = {**handle, "accessor": token.accessor}
        await self._note(checkpoint, handle, None, undo=partial(self._calls.revoke_accessor, token.accessor))
        self._refuse_wider_token(token, self._policy(role), ttl)
        login = await self._read_login(mount, role, token)
        handle = {**handle, "lease": login.lease_id}
        # Setting the end makes nothing new, so it need not wait for the note; nothing is delivered before both.
        noted = asyncio.ensure_future(
            self._note(checkpoint, handle, login.lease_id, undo=partial(self._drop, token, login))
        )
        try:
            self._refuse_foreign_login(login, mount, role, attempt)
            lease_ttl = await self._shorten(login, ttl)
        finally:
            await noted
        return Issued(
            DatabaseLogin(
                engine=self._settings.engine,
                host=self._settings.host,
                port=self._settings.port,
                database=self._settings.database,
                username=login.username,
                password=login.password,
            ),
            expires_at=begun + timedelta(seconds=ttl),
            observed={
                "username": login.username,
                "lease_id": login.lease_id,
                "token_accessor": token.accessor,
                "token_ttl_seconds": token.ttl,
                "lease_ttl_seconds": lease_ttl,
            },
        )

    def _whole_seconds(self, begun: datetime, expires_at: datetime) -> int:
        left = expires_at - begun
        if self._closing.closed:
            raise self._not_begun(f"{self._name} is being replaced by a newer definition.", "Ask again.")
        if left <= timedelta(0):
            why = f"the credential's time was over before {self._name} could be asked."
            raise self._not_begun(why, "Ask for a longer TTL.")
        return max(1, left // timedelta(seconds=1))

    async def _make_token(self, handle: Handle, ttl: int) -> AttemptToken:
        role, attempt = str(handle["role"]), str(handle["attempt"])
        create = partial(
            self._calls.create_token,
            self._settings.token_role,
            self._policy(role),
            ttl,
            attempt,
            {"attempt": attempt, "holder": str(handle["holder"])},
        )
        try:
            return await self._issuing.run(create, undo=lambda made: self._calls.revoke_accessor(made.accessor))
        except VaultFailure as failure:
            raise self._failed("make a token for the attempt", failure, first=True) from None

    async def _read_login(self, mount: str, role: str, token: AttemptToken) -> Login:
        read = partial(self._calls.read_login, mount, role, token.token)
        try:
            return await self._issuing.run(read, undo=partial(self._drop, token))
        except VaultFailure as failure:
            raise self._failed(f"make a login of role {role}", failure) from None

    async def _shorten(self, login: Login, ttl: int) -> int:
        try:
            told = await self._issuing.run(partial(self._calls.set_lease_end, login.lease_id, ttl))
        except VaultFailure as failure:
            raise self._failed("set the end of the login", failure) from None
        if not 0 < told <= ttl:
            raise self._mismatch(f"the login's lease ends in {told} s, asked were {ttl} s")
        return told

    async def _note(
        self, checkpoint: Checkpoint, handle: Handle, upstream: str | None, *, undo: Callable[[], object]
    ) -> None:
        """Nothing goes on unless the ledger has it. If it has not, what was made is taken back at once."""
        try:
            await checkpoint(handle, upstream)
        except BaseException:
            self._revoking.later(undo)
            raise

    def _drop(self, token: AttemptToken, login: Login) -> None:
        self._calls.revoke_lease(login.lease_id)
        self._calls.revoke_accessor(token.accessor)

    # ------------------------------------------------------------------ comparing what came back

    def _refuse_wider_token(self, token: AttemptToken, policy: str, ttl: int) -> None:
        if token.policies != (policy,):
            raise self._mismatch(f"the attempt's token has policies {list(token.policies)}, asked was {policy!r} alone")
        if not 0 < token.ttl <= ttl:
            raise self._mismatch(f"the attempt's token lives {token.ttl} s, asked were {ttl} s")
        if token.renewable or not token.orphan or token.kind != "service":
            raise self._mismatch("the attempt's token is not an orphan service token that cannot be renewed")

    def _refuse_foreign_login(self, login: Login, mount: str, role: str, attempt: str) -> None:
        if not login.lease_id.startswith(f"{mount}/creds/{role}/"):
            raise self._mismatch("the login's lease is not one of the role that was asked for")
        if attempt not in login.username:
            raise self._mismatch(
                "the login does not carry the attempt's id",
                hint="Operators: the connection's username_template must contain {{.DisplayName}} in full.",
            )

    def _policy(self, role: str) -> str:
        return self._settings.policy_prefix + role

    def _not_begun(self, why: str, hint: str) -> UpstreamFailed:
        return UpstreamFailed(
            Reason.UPSTREAM_UNAVAILABLE, why, outcome_known=True, hint=hint, metadata={"connector": self._name}
        )

    def _mismatch(self, what: str, hint: str = "Operators: see the connector's page for the set-up.") -> UpstreamFailed:
        return UpstreamFailed(
            Reason.UPSTREAM_GRANT_MISMATCH,
            f"{self._name} granted something else than was asked: {what}.",
            hint=hint,
            metadata={"connector": self._name},
        )

    def _failed(self, step: str, failure: VaultFailure, *, first: bool = False) -> UpstreamFailed:
        reason, hint = Reason.UPSTREAM_UNAVAILABLE, "Retry later with the same request_id."
        if first and failure.status in (401, 403):
            reason = Reason.UPSTREAM_ROOT_REFUSED
            hint = "Operators: the broker's own token has expired or its policy lacks this; nothing can be issued."
        elif failure.proves_nothing_was_made and failure.status not in (0, 429):
            reason, hint = Reason.UPSTREAM_REFUSED, "Operators: the role, its policy or the token role is not set up."
        return UpstreamFailed(
            reason,
            f"{self._name} could not {step}: {failure.what}.",
            outcome_known=first and failure.proves_nothing_was_made,
            retry_after=failure.retry_after.total_seconds() if failure.retry_after is not None else None,
            hint=hint,
            metadata={"connector": self._name, "status": str(failure.status)},
        )
