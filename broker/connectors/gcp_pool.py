"""Access tokens of service accounts that are lent to one attempt each (kind ``gcp-pool``).

A token of a service account cannot be revoked, but the account can be disabled: "Existing access tokens for the
service account are rejected" (IAM API, ``serviceAccounts.disable``). So each template has a pool of accounts with the
same bindings, made beforehand; an attempt is lent one, and ending it disables that. Enabling brings tokens back that
have not ended by themselves, so an account rests until they have, and then for an hour, before ``tend`` enables it.

Who has which account is in the ledger (:class:`broker.ports.allocations.AllocationStore`), committed before Google is
asked for anything; the account itself tells the rest: enabled is lent or ready, disabled is resting. What does not fit
together is disabled, and rests.

What the operator must have set up (``deploy/gcp/``): the pool's accounts, bound alike and to nothing else; a role on
them for the broker to impersonate, disable, enable and look at them; nobody else's role, and no keys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.gcp_accounts import Accounts
from broker.connectors.gcp_boundary import access_boundary
from broker.connectors.gcp_examine import doubts_of_account
from broker.connectors.gcp_failures import exhausted, mismatched, told
from broker.connectors.gcp_http import GcpFailure
from broker.connectors.gcp_lending import Lender
from broker.connectors.gcp_mint import LONGEST, TOLERANCE, Minted, Mismatch, Wanted, scopes_of
from broker.connectors.gcp_upstream import GcpSettings, GcpUpstream, credential, malformed, observed
from broker.connectors.gcp_use import read_storage
from broker.connectors.lending import Lending
from broker.connectors.own_identity import OwnIdentity
from broker.connectors.threads import being_replaced
from broker.errors import UpstreamFailed
from broker.lease.credential import Binding, Contract, ContractClass, Credential, GcpToken
from broker.lease.quarantine import QUARANTINE, TICK
from broker.ports.allocations import TakenUp
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Carried,
    Checkpoint,
    Doubt,
    Handle,
    Issued,
    NotYet,
    RevokeContext,
    RevokeOutcome,
    Severity,
    Use,
)
from broker.scope.model import Scope

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    ttl_floor=timedelta(minutes=1),
    ttl_ceiling=LONGEST,
    on_expiry=TOLERANCE,
    # "Disables a ServiceAccount immediately", says Google, and no figure; canaries measure it.
    on_revoke=timedelta(minutes=1),
    broker_dead="Google ends the token: its lifetime is the TTL that was asked for.",
    upstream_dead="Where IAM cannot be asked to disable the account, the token ends with its lifetime.",
    on_broker_dead=TOLERANCE,
    on_upstream_dead=TOLERANCE,
    gives=GcpToken,
)


@dataclass(frozen=True, slots=True)
class Pool:
    """Accounts that are bound alike: ``PREFIX000@PROJECT...`` and on."""

    prefix: str
    size: int
    project: str
    buckets: tuple[str, ...] = ()  # where each account has a role, for an examination

    @property
    def accounts(self) -> tuple[str, ...]:
        """Their emails."""
        domain = f"{self.project}.iam.gserviceaccount.com"
        return tuple(f"{self.prefix}{number:03d}@{domain}" for number in range(self.size))


class GcpPool:
    """The connector. ``pools`` by the name that grants use."""

    def __init__(
        self,
        name: str,
        settings: GcpSettings,
        pools: Mapping[str, Pool],
        lending: Lending,
        own: OwnIdentity,
        clock: Clock,
    ) -> None:
        self._name = name
        self._pools = pools
        self._clock = clock
        self._upstream = GcpUpstream(name, settings, own, clock)
        self._accounts = Accounts(self._upstream.base, self._upstream.transport)
        self._lending = Lender(
            lending.ledger(name), lending.tenant, name, self._accounts, self._upstream.revoking, clock
        )

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: the account is the attempt's alone, and disabling it refuses its tokens."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The names; which account it will be is decided when it is lent. Raises InvalidInput."""
        name, _ = self._pool(scope)
        self._wanted(scope, "none-yet", expires_at)
        return {"attempt": attempt_id, "holder": holder, "pool": name}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A token of an account that is this attempt's alone, until ``expires_at``.

        Raises UpstreamExhausted with the time to wait, UpstreamFailed, InvalidInput, and what ``checkpoint`` raises.
        """
        self._upstream.begin(expires_at)
        name, pool = self._pool(scope)
        attempt = str(handle["attempt"])
        with self._upstream.closing.call():
            await self._reachable()
            taken = await self._lending.take(attempt, pool.accounts, expires_at + TOLERANCE)
            if isinstance(taken, TakenUp):
                now = self._clock.now()
                # Of accounts that were never looked at, only that they rest for as long as any.
                free_at = taken.free_at or now + LONGEST + QUARANTINE
                raise exhausted(self._name, name, pool.size, free_at + TICK, now)
            wanted = self._wanted(scope, taken.account, expires_at)
            handle = {**handle, "account": taken.account}
            await self._note(handle, checkpoint)
            minted = await self._made(handle, wanted, checkpoint)
        return Issued(credential(minted, wanted, scope), minted.ends, observed(minted, wanted))

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Disable the account, see that it is disabled, and let it rest."""
        if self._upstream.closing.closed:
            return NotYet(f"{self._name} is being replaced.", failed=False)
        with self._upstream.closing.call():
            return await self._lending.end(handle, context)

    async def inventory(self) -> Sequence[Carried]:
        """Every account that is enabled and not ready: lent, or enabled by somebody else. Raises UpstreamFailed."""
        self._upstream.begin(self._clock.now() + LONGEST)
        try:
            with self._upstream.closing.call():
                return await self._lending.carried(self._every_account())
        except GcpFailure as failure:
            raise told(failure, self._name, "look at its service accounts") from None

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Ask Cloud Storage for a name of what its boundary leaves, or of the bucket for canaries.

        Raises UpstreamFailed, too, where there is neither.
        """
        look = partial(read_storage, self._name, credential, scope, self._upstream)
        with self._upstream.closing.call():
            return await self._upstream.revoking.run(look)

    async def tend(self) -> None:
        """Enable what has rested, and let rest what nobody knows. Raises UpstreamFailed."""
        if self._upstream.closing.closed:
            return
        try:
            with self._upstream.closing.call():
                await self._lending.tend(self._every_account())
        except GcpFailure as failure:
            raise told(failure, self._name, "tend its service accounts") from None

    async def examine(self) -> Sequence[Doubt]:
        """The own credential, every account of every pool, and whether the ledger's rows of them are whole."""
        upstream = self._upstream
        if upstream.closing.closed:
            return [being_replaced()]
        with upstream.closing.call():
            doubts = await upstream.examined()
            if any(each.severity is Severity.ERROR for each in doubts):
                return doubts
            doubts += await self._lending.doubts(self._every_account())
            for pool in self._pools.values():
                for account in pool.accounts:
                    look = partial(doubts_of_account, self._accounts, account, lends=True, buckets=pool.buckets)
                    doubts += await upstream.revoking.run(look)
        return doubts

    async def close(self) -> None:
        """Let calls under way finish, then close the connections."""
        await self._upstream.close()

    # ------------------------------------------------------------------ the steps of issuing

    async def _reachable(self) -> None:
        """Where Google does not know the broker nothing is lent."""
        try:
            await self._upstream.issuing.run(self._upstream.base.token)
        except GcpFailure as failure:
            raise told(failure, self._name, "begin") from None

    async def _note(self, handle: Handle, checkpoint: Checkpoint) -> None:
        attempt, account = str(handle["attempt"]), str(handle["account"])
        try:
            await checkpoint(handle, _upstream_name(account, attempt))
        except BaseException:
            await self._lending.give_back(attempt, account)  # nothing was made with it
            raise

    async def _made(self, handle: Handle, wanted: Wanted, checkpoint: Checkpoint) -> Minted:
        """The token; an account that provably nothing was made with is given back, and nothing else is."""
        failure: UpstreamFailed
        try:
            return await self._upstream.issuing.run(partial(self._upstream.mint.make, wanted))
        except GcpFailure as error:
            failure = told(error, self._name, f"make a token of {wanted.account}")
        except Mismatch as mismatch:
            failure = mismatched(mismatch, self._name)
            if mismatch.ends is not None:  # how long it must rest, if it was made for longer than was asked
                attempt = str(handle["attempt"])
                noted = {**handle, "token_ends": mismatch.ends.isoformat()}
                await checkpoint(noted, _upstream_name(wanted.account, attempt))
        if failure.outcome_known:
            await self._lending.give_back(str(handle["attempt"]), wanted.account)
        raise failure

    def _pool(self, scope: Scope) -> tuple[str, Pool]:
        name = scope.grant.get("pool")
        if not isinstance(name, str) or name not in self._pools:
            raise malformed(scope, f"there is no pool {ascii(name)[:100]}; there are {', '.join(sorted(self._pools))}")
        return name, self._pools[name]

    def _wanted(self, scope: Scope, account: str, expires_at: datetime) -> Wanted:
        try:
            scopes = scopes_of(scope.grant.get("scopes"))
        except ValueError as error:
            raise malformed(scope, str(error)) from None
        return Wanted(account, scopes, expires_at, access_boundary(scope))

    def _every_account(self) -> tuple[str, ...]:
        return tuple(account for pool in self._pools.values() for account in pool.accounts)


def _upstream_name(account: str, attempt: str) -> str:
    """An account is lent again and again: the attempt is part of the name that the ledger knows."""
    return f"{account}/{attempt}"
