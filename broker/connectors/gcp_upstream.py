"""What both connectors to Google Cloud have: settings, transport, the broker's own credential, the mint, threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.connectors.gcp_base import BaseCredential, Federation
from broker.connectors.gcp_http import GcpFailure, GcpTransport
from broker.connectors.gcp_mint import Mint, Minted, Wanted
from broker.connectors.own_identity import OwnIdentity
from broker.connectors.refusals import check_can_begin
from broker.connectors.threads import Closing, Threads
from broker.errors import InvalidInput, Reason
from broker.lease.credential import GcpToken
from broker.ports.clock import Clock
from broker.ports.connectors import Doubt, Severity
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret


@dataclass(frozen=True, slots=True)
class GcpSettings:
    """What the operator says about one such upstream. ``timeout`` in seconds."""

    credentials: Federation | Callable[[], Secret]  # the latter: a service account's key, as JSON
    endpoint_url: str | None = None  # in place of every host of Google's: a double
    canary_bucket: str | None = None  # what a canary reads of; None: nothing can be tried
    timeout: float = 5.0
    threads: int = 8


class GcpUpstream:
    """The parts; each connector has its own."""

    def __init__(self, name: str, settings: GcpSettings, own: OwnIdentity, clock: Clock) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        # Connections enough for both pools of threads: what is to be ended must not wait for one.
        self.transport = GcpTransport(settings.endpoint_url, timeout=settings.timeout, threads=2 * settings.threads)
        self.base = BaseCredential(settings.credentials, own, self.transport, clock)
        self.mint = Mint(self.base, self.transport, clock)
        self.issuing = Threads(f"{name}-issue", settings.threads)
        self.revoking = Threads(f"{name}-revoke", settings.threads)
        self.closing = Closing()

    def begin(self, expires_at: datetime) -> datetime:
        """The present, where there is still something to issue. Raises UpstreamFailed (outcome known)."""
        begun = self.clock.now()
        check_can_begin(self.name, closed=self.closing.closed, left=expires_at - begun, least=timedelta(seconds=1))
        return begun

    async def examined(self) -> list[Doubt]:
        """Doubts about the broker's own credential; an ERROR among them: nothing else can be asked."""
        doubts = []
        if self.base.is_key:
            doubts.append(
                Doubt(
                    Severity.WARNING,
                    "The broker's own credential is a key of a service account, which has no end.",
                    "Use workload identity federation with the broker's own JWT-SVID: `credentials.federation`.",
                )
            )
        try:
            await self.revoking.run(self.base.token)
        except GcpFailure as failure:
            remedy = "Check `credentials`: the provider's audience, its issuer and keys, what SPIFFE ID it takes."
            doubts.append(Doubt(Severity.ERROR, f"It cannot be asked: {failure.what}.", remedy))
        return doubts

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads and connections."""
        await self.closing.close()
        await self.issuing.close()
        await self.revoking.close()
        self.transport.close()


def credential(minted: Minted, wanted: Wanted, scope: Scope) -> GcpToken:
    """What is delivered."""
    return GcpToken(
        access_token=minted.token,
        expires_at=minted.ends,
        project=scope.account,
        service_account=wanted.account,
        scopes=wanted.scopes,
        access_boundary="" if wanted.boundary is None else wanted.boundary.text,
    )


def observed(minted: Minted, wanted: Wanted) -> dict[str, JsonValue]:
    """The upstream's own names and limits, for the trail."""
    told: dict[str, JsonValue] = {
        "service_account": wanted.account,
        "scopes": list(wanted.scopes),
        "native_expiration": minted.ends.isoformat(),
    }
    if wanted.boundary is not None:
        told["access_boundary"] = wanted.boundary.text
    return told


def malformed(scope: Scope, what: str) -> InvalidInput:
    """The grant is not one for this connector."""
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"the grant of template {scope.template} is not one for connector {scope.connector}: {what}.",
        hint="Operators: `broker check` tells file and line.",
        metadata={"template": scope.template, "connector": scope.connector},
    )
