"""Access tokens of a service account, by impersonation (kind ``gcp-token``).

One call of ``generateAccessToken`` with the lifetime that was asked for, and where the grant has a boundary a second
one that narrows the token. Nothing is undone upstream: "service account tokens are not revocable" (gcloud reference,
``auth revoke``), and the account is shared, so that disabling it would end everybody's. Only time ends these, and
Google keeps it: with the broker dead, too. ``gcp_pool.py`` is the connector that can revoke.

What the operator must have set up (``deploy/gcp/``): the broker may iam.serviceAccounts.getAccessToken on each service
account, and nothing else; these may what the templates say, and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from broker.connectors.gcp_accounts import Accounts
from broker.connectors.gcp_boundary import access_boundary
from broker.connectors.gcp_examine import doubts_of_account
from broker.connectors.gcp_failures import mismatched, told
from broker.connectors.gcp_http import GcpFailure
from broker.connectors.gcp_mint import LONGEST, TOLERANCE, Mismatch, Wanted, scopes_of
from broker.connectors.gcp_upstream import GcpSettings, GcpUpstream, credential, malformed, observed
from broker.connectors.gcp_use import read_storage
from broker.connectors.own_identity import OwnIdentity
from broker.connectors.threads import being_replaced
from broker.lease.credential import Binding, Contract, ContractClass, Credential, GcpToken
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Checkpoint,
    Doubt,
    Expired,
    Handle,
    Issued,
    NotYet,
    RevokeContext,
    RevokeOutcome,
    Severity,
    Use,
)
from broker.scope.model import Scope

_ACCOUNT_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]\Z", re.ASCII)

CONTRACT = Contract(
    cls=ContractClass.EXPIRY_ONLY,
    binding=Binding.NONE,
    # Google documents no shortest lifetime. Below a minute, clocks and the way there would be most of it.
    ttl_floor=timedelta(minutes=1),
    ttl_ceiling=LONGEST,
    on_expiry=TOLERANCE,
    on_revoke=None,
    broker_dead="Google ends the token: its lifetime is the TTL that was asked for.",
    upstream_dead="As with the broker dead: the end is in the token.",
    on_broker_dead=TOLERANCE,
    on_upstream_dead=TOLERANCE,
    gives=GcpToken,
)


class GcpTokens:
    """The connector. ``accounts``: the emails of the service accounts that it may impersonate at all."""

    def __init__(
        self, name: str, settings: GcpSettings, accounts: frozenset[str], own: OwnIdentity, clock: Clock
    ) -> None:
        self._name = name
        self._accounts = accounts
        self._upstream = GcpUpstream(name, settings, own, clock)

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """EXPIRY_ONLY: the lifetime that was asked for ends it, nothing sooner."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The names, and a rehearsal of what Google would refuse for size or form. Raises InvalidInput."""
        wanted = self._wanted(scope, expires_at)
        return {"attempt": attempt_id, "holder": holder, "service_account": wanted.account}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A token until ``expires_at``, or as long as Google gives where that is shorter.

        Raises UpstreamFailed, InvalidInput. ``checkpoint`` is not needed: nothing that is made could be taken back.
        """
        self._upstream.begin(expires_at)
        wanted = self._wanted(scope, expires_at)
        try:
            with self._upstream.closing.call():
                minted = await self._upstream.issuing.run(partial(self._upstream.mint.make, wanted))
        except GcpFailure as failure:
            raise told(failure, self._name, f"make a token of {wanted.account}") from None
        except Mismatch as mismatch:
            raise mismatched(mismatch, self._name) from None
        return Issued(credential(minted, wanted, scope), minted.ends, observed(minted, wanted))

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Expired from the token's end on, issued or not; before it, only waiting helps."""
        left = context.expires_at - context.now
        if left <= timedelta(0):
            return Expired()
        return NotYet("only time ends a token of a service account that others use, too.", left, failed=False)

    async def inventory(self) -> None:
        """None: Google keeps no list of the tokens that it has given out."""

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """Ask Cloud Storage for a name of what its boundary leaves, or of the bucket for canaries.

        Raises UpstreamFailed, too, where there is neither.
        """
        look = partial(read_storage, self._name, credential, scope, self._upstream)
        with self._upstream.closing.call():
            return await self._upstream.revoking.run(look)

    async def tend(self) -> None:
        """Nothing of ours ages: the own token is fetched anew before its end, by whoever needs it."""

    async def examine(self) -> Sequence[Doubt]:
        """The own credential, and what the broker may do with each service account."""
        upstream = self._upstream
        if upstream.closing.closed:
            return [being_replaced()]
        with upstream.closing.call():
            doubts = await upstream.examined()
            if any(each.severity is Severity.ERROR for each in doubts):
                return doubts
            accounts = Accounts(upstream.base, upstream.transport)
            for account in sorted(self._accounts):
                doubts += await upstream.revoking.run(partial(doubts_of_account, accounts, account, lends=False))
        return doubts

    async def close(self) -> None:
        """Let calls under way finish, then close the connections."""
        await self._upstream.close()

    def _wanted(self, scope: Scope, expires_at: datetime) -> Wanted:
        account = scope.grant.get("service_account")
        if not isinstance(account, str) or not _ACCOUNT_ID.match(account):
            raise malformed(scope, f"service_account is no id of one: {ascii(account)[:100]}")
        email = f"{account}@{scope.account}.iam.gserviceaccount.com"
        if email not in self._accounts:
            raise malformed(scope, f"{email} is not among the connector's service_accounts")
        try:
            scopes = scopes_of(scope.grant.get("scopes"))
        except ValueError as error:
            raise malformed(scope, str(error)) from None
        return Wanted(email, scopes, expires_at, access_boundary(scope))
