"""The broker's own login at Vault or OpenBao, by its JWT-SVID (auth method ``jwt``): no token is kept anywhere.

A login token lives as long as its role says. It is replaced at half of its life, and once more where the server
refuses it sooner (it was revoked, or the server was restored from a copy). The tokens of attempts are orphans by
their token role, so none of them dies with the login that made it; a login that was replaced runs out by itself,
because calls with it may be under way.

Everything here blocks for a bounded time and is called from a connector's own threads.
"""

from __future__ import annotations

import hmac
import threading
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from broker.connectors.own_identity import OwnIdentity
from broker.connectors.vault_http import Known, VaultAdapter, VaultFailure
from broker.errors import BrokerError
from broker.ports.clock import Clock, earliest
from broker.secret import Secret

# A token that the server refuses although it is younger than this is refused for what it may do, not for its age:
# another login would not help, and one per refused call would be a storm.
_YOUNG = timedelta(seconds=5)
# For so long a login that failed is not tried again: whoever asks is told what the last one came to.
_PAUSE = timedelta(seconds=1)
# A call that begins shortly before a token's end must not outlive it.
_SPARE = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class JwtRole:
    """Where the broker logs in, as what, and for whom its token is made out."""

    mount: str
    role: str
    audience: str


@dataclass(frozen=True, slots=True)
class _Held:
    token: Secret
    since: datetime
    ends: datetime


class JwtLogin:
    """The login in force, made when one is first needed. Safe from any thread.

    ``exchange`` in the calls is an adapter without a token, to the server that is logged in to.
    """

    def __init__(self, role: JwtRole, own: OwnIdentity, clock: Clock) -> None:
        self._role = role
        self._own = own
        self._clock = clock
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._failure: VaultFailure | None = None
        self._retry_at = clock.now()

    def token(self, exchange: VaultAdapter) -> Secret:
        """The token in force. Raises VaultFailure, always NOT_SENT: what it was needed for was never asked."""
        with self._lock:
            # What waiting for others took is over now: the time is asked for under the lock.
            held, now = self._held, self._clock.now()
            if held is None or now >= held.ends - min(_SPARE, (held.ends - held.since) / 2):
                held = self._log_in(exchange, now)
            return held.token

    def keep(self, exchange: VaultAdapter) -> None:
        """Log in anew where half of the token's life is over. Raises VaultFailure; what is held is kept then."""
        with self._lock:
            held, now = self._held, self._clock.now()
            if held is None or now - held.since >= (held.ends - held.since) / 2:
                self._log_in(exchange, now)

    def instead_of(self, refused: Secret, exchange: VaultAdapter) -> Secret | None:
        """Another token than the one that the server refused; None where another would be refused as well."""
        with self._lock:
            held, now = self._held, self._clock.now()
            if held is not None and not hmac.compare_digest(held.token.reveal(), refused.reveal()):
                return held.token  # somebody else was quicker
            if held is not None and now - held.since < _YOUNG:
                return None
            return self._log_in(exchange, now).token

    def _log_in(self, exchange: VaultAdapter, now: datetime) -> _Held:
        if self._failure is not None and now < self._retry_at:
            last = self._failure  # as another: two threads do not raise one
            raise VaultFailure(last.known, last.what, status=last.status, retry_after=last.retry_after)
        try:
            self._held = self._logged_in(exchange, now)
        except VaultFailure as failure:
            # By the time it is over, not begun: those who waited for it meanwhile do not each wait once more.
            self._failure, self._retry_at = failure, self._clock.now() + _PAUSE
            raise
        self._failure = None
        return self._held

    def _logged_in(self, exchange: VaultAdapter, now: datetime) -> _Held:
        body = {"role": self._role.role, "jwt": self._svid().reveal()}
        try:
            auth = exchange.request("post", f"/v1/auth/{self._role.mount}/login", json=body).get("auth")
        except VaultFailure as failure:
            raise self._failed(failure) from None
        return self._checked(auth, now)

    def _svid(self) -> Secret:
        failure = None
        try:
            svid = self._own.own_token(self._role.audience)
        except BrokerError as error:
            failure = VaultFailure(Known.NOT_SENT, error.message.rstrip("."))
        except (OSError, ValueError) as error:
            failure = VaultFailure(
                Known.NOT_SENT, f"the broker has no JWT-SVID to log in with ({type(error).__name__})"
            )
        if failure is not None:
            raise failure
        # OpenBao takes a token without an end, or one that it has to believe the end of; the broker sends neither.
        # It is made out by another's clock, and what it is needed for is mostly to end something.
        if svid.expires_at <= earliest(self._clock):
            raise VaultFailure(Known.NOT_SENT, "the broker's own JWT-SVID has expired")
        return svid.token

    def _checked(self, auth: Any, now: datetime) -> _Held:
        token = auth.get("client_token") if isinstance(auth, dict) else None
        seconds = auth.get("lease_duration") if isinstance(auth, dict) else None
        if not isinstance(token, str) or not token or not isinstance(seconds, int) or isinstance(seconds, bool):
            raise VaultFailure(Known.NOT_SENT, "the login's answer says success but holds no token, or no end of it")
        if seconds <= 0:
            raise VaultFailure(Known.NOT_SENT, "the login gave a token that never ends: set token_ttl of its role")
        return _Held(Secret(token), now, now + timedelta(seconds=seconds))

    def _failed(self, failure: VaultFailure) -> VaultFailure:
        # A role that is unknown or bound to something else is a 400; for the broker it is the same refusal.
        refused = failure.known is Known.REJECTED and failure.status in (400, 401, 403)
        return VaultFailure(
            Known.NOT_SENT,
            f"the broker could not log in at auth/{self._role.mount} as {self._role.role}: {failure.what}",
            status=403 if refused else failure.status,
            retry_after=failure.retry_after,
        )


class LoggedIn(VaultAdapter):
    """An adapter with the login's token, which asks once more with another where the server refuses that one.

    A refused request was not carried out, so asking again makes nothing twice.
    """

    def __init__(self, adapter: VaultAdapter, login: JwtLogin) -> None:
        self._in_use = login.token(adapter)
        super().__init__(
            adapter.pool,
            adapter.base_uri,
            self._in_use,
            timeout=adapter.timeout_seconds,
            namespace=adapter.namespace or "",
        )
        self._plain = adapter
        self._login = login

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """See :class:`VaultAdapter`."""
        try:
            return super().request(method, url, *args, **kwargs)
        except VaultFailure as refused:
            if refused.status != 403 or refused.known is not Known.REJECTED:
                raise
            fresh = self._login.instead_of(self._in_use, self._plain)
            if fresh is None:
                raise
        self._in_use, self.token = fresh, fresh.reveal()
        return super().request(method, url, *args, **kwargs)
