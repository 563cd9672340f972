"""Making one access token of one service account, and holding what came back against what was asked.

Order of the calls: the broker's own token, if it is not fresh; ``generateAccessToken`` with the lifetime; where there
is a boundary, the exchange of that token for a downscoped one. A downscoped token ends when its source does (says
google-auth, ``downscoped.Credentials.refresh``), so the lifetime is set on the source, which only the broker ever sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.auth import downscoped, impersonated_credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2.credentials import Credentials as AccessToken

from broker.connectors.gcp_base import BaseCredential
from broker.connectors.gcp_boundary import Boundary
from broker.connectors.gcp_http import GcpFailure, GcpTransport
from broker.ports.clock import Clock
from broker.secret import Secret

# generateAccessToken: "lifetime", at most an hour without an organization policy that allows more.
LONGEST = timedelta(hours=1)
# Of the end that Google states and the one that was asked for: the way there, and clocks that differ.
TOLERANCE = timedelta(seconds=10)


class Mismatch(Exception):
    """Google made something else than was asked. ``ends``: when what it made ends at the latest, if it said so."""

    def __init__(self, what: str, ends: datetime | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.ends = ends


@dataclass(frozen=True, slots=True)
class Minted:
    """One token, and when Google ends it."""

    token: Secret
    ends: datetime


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made: a token of ``account``, until ``ends``, rounded down to a whole second of life."""

    account: str
    scopes: tuple[str, ...]
    ends: datetime
    boundary: Boundary | None


class Mint:
    """Makes tokens with the broker's own credential."""

    def __init__(self, base: BaseCredential, transport: GcpTransport, clock: Clock) -> None:
        self._base = base
        self._transport = transport
        self._clock = clock

    def make(self, wanted: Wanted) -> Minted:
        """Blocks for a few requests. Raises GcpFailure, Mismatch."""
        own = self._base.token()
        try:
            source = self._impersonated(wanted, own)
        except ValueError as error:
            raise GcpFailure(str(error), sent=False) from None
        made = source if wanted.boundary is None else downscoped.Credentials(source, wanted.boundary.rules)
        failure: Exception | None = None
        begun = self._clock.now()
        try:
            made.refresh(self._transport.guarded(lambda: self._still_wanted(wanted)))
        except GcpFailure as error:
            failure = self._told(error)
        except (GoogleAuthError, ValueError, TypeError, KeyError, AttributeError) as error:
            # The library's texts hold the reply, and the reply may hold the token.
            failure = GcpFailure(f"it said success, but the reply is not whole ({type(error).__name__})", status=200)
        if failure is not None:
            # A source token that was made before a later step failed is as alive as one that was delivered.
            if source.token is not None and isinstance(failure, GcpFailure):
                failure.status, failure.sent = 0, True
            raise failure
        return self._checked(made, source, wanted, begun)

    def _impersonated(self, wanted: Wanted, own: str) -> Any:
        seconds = lifetime(self._clock.now(), wanted.ends)
        return impersonated_credentials.Credentials(
            # Without an expiry it counts as fresh: this class would not know how to refresh it, the base does.
            source_credentials=AccessToken(token=own),
            target_principal=wanted.account,
            target_scopes=list(wanted.scopes),
            lifetime=seconds,
        )

    def _still_wanted(self, wanted: Wanted) -> None:
        """A process that stood still must not make, when it goes on, what has been given up meanwhile."""
        if self._clock.now() >= wanted.ends:
            raise GcpFailure("the credential's time was over before the request left", sent=False)

    def _told(self, error: GcpFailure) -> GcpFailure:
        if error.status == 401:
            self._base.forget()
            error.own_credential = True
        return error

    def _checked(self, made: Any, source: Any, wanted: Wanted, begun: datetime) -> Minted:
        token, ends = made.token, made.expiry
        if not isinstance(token, str) or not token or not isinstance(ends, datetime):
            raise GcpFailure("it said success, but the token is missing", status=200)
        native = source.expiry.replace(tzinfo=UTC)
        if native > wanted.ends + TOLERANCE:
            raise Mismatch("the token lives longer than was asked for, or the clocks differ", native)
        if made is not source:
            if Secret(token) == Secret(source.token):
                raise Mismatch("the exchange for a narrower token returned the wide one", native)
            # Where STS states an end at all, google-auth adds it to its own clock.
            stated = ends.replace(tzinfo=UTC)
            if stated > native + TOLERANCE:
                raise Mismatch("the downscoped token is said to outlive its source", stated)
            native = min(native, stated)
        if native <= begun:
            raise Mismatch("the token has ended already, or the clocks differ", native)
        return Minted(Secret(token), native)


def lifetime(now: datetime, ends: datetime) -> int:
    """Whole seconds of life to ask for, rounded down. Raises ValueError outside 1 s to an hour.

    google-auth turns 0 and None into an hour (``lifetime or 3600``), so neither ever gets there.
    """
    seconds = (ends - now) // timedelta(seconds=1)
    if not 1 <= seconds <= LONGEST // timedelta(seconds=1):
        raise ValueError(f"a token lives for 1 to {LONGEST.total_seconds():.0f} s, not for {seconds} s")
    return seconds


def scopes_of(stated: object) -> tuple[str, ...]:
    """OAuth scopes as a grant states them. Raises ValueError."""
    if not isinstance(stated, Sequence) or isinstance(stated, str) or not stated:
        raise ValueError("scopes is a list with at least one scope")
    for each in stated:
        if not isinstance(each, str) or not each.startswith("https://www.googleapis.com/auth/"):
            raise ValueError(f"{ascii(each)[:100]} is no OAuth scope")
    return tuple(stated)
