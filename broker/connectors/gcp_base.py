"""The broker's own credential on Google Cloud: as what it may impersonate and disable service accounts.

Workload identity federation exchanges the broker's own JWT-SVID at ``sts.googleapis.com`` for a token of an hour; no
key is kept anywhere. A service-account key, by reference, is the other way, and the worse one: whoever copies it has
it until somebody notices.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.auth import identity_pool
from google.auth.credentials import Credentials
from google.auth.exceptions import GoogleAuthError
from google.oauth2 import service_account

from broker.connectors.gcp_http import GcpFailure, GcpTransport
from broker.connectors.own_identity import OwnIdentity
from broker.errors import BrokerError
from broker.ports.clock import Clock
from broker.secret import Secret

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_JWT = "urn:ietf:params:oauth:token-type:jwt"
# A token is fetched anew this long before its end: what is begun with it must also come to its end.
_FRESH = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Federation:
    """Where the broker's JWT-SVID is exchanged.

    ``audience`` names the provider:
    ``//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/P/providers/Q``.
    """

    audience: str
    # What the JWT-SVID is made for; None: the provider's own name as a URL, which is a provider's default.
    token_audience: str | None = None

    @property
    def asked_for(self) -> str:
        """The audience of the JWT-SVID."""
        return self.token_audience or f"https:{self.audience}"


class BaseCredential:
    """The broker's own access token. Safe from any thread; blocks for at most a few requests."""

    def __init__(
        self,
        source: Federation | Callable[[], Secret],
        own: OwnIdentity,
        transport: GcpTransport,
        clock: Clock,
    ) -> None:
        self._source = source
        self._own = own
        self._transport = transport
        self._clock = clock
        self._lock = threading.Lock()
        self._token: Secret | None = None
        self._until: datetime | None = None

    @property
    def is_key(self) -> bool:
        """Whether it is a key that is kept somewhere."""
        return not isinstance(self._source, Federation)

    def token(self) -> str:
        """A token that lives for minutes more. Raises GcpFailure (``own_credential``)."""
        with self._lock:
            if self._token is None or self._until is None or self._clock.now() >= self._until - _FRESH:
                self._token, self._until = self._fetched()
            return self._token.reveal()

    def forget(self) -> None:
        """It was refused: the next one who needs it fetches another."""
        with self._lock:
            self._token = None

    def _fetched(self) -> tuple[Secret, datetime]:
        failure, made = None, None
        try:
            made = self._credentials()
            made.refresh(self._transport)
        except GcpFailure as error:
            failure = GcpFailure(
                f"the broker's own credential: {error.what}",
                status=error.status,
                code=error.code,
                sent=False,
                answered=error.answered,
                own_credential=True,
                retry_after=error.retry_after,
            )
        except (GoogleAuthError, BrokerError, ValueError, TypeError, KeyError) as error:
            # The library's texts may hold what the upstream, or the file with the key, said.
            failure = _unusable(type(error).__name__)
        if failure is not None:
            raise failure
        token, expiry = getattr(made, "token", None), getattr(made, "expiry", None)
        if not isinstance(token, str) or not token or not isinstance(expiry, datetime):
            raise _unusable("the reply is not whole")
        return Secret(token), expiry.replace(tzinfo=UTC)

    def _credentials(self) -> Any:
        if isinstance(self._source, Federation):
            return _federated(self._source, self._own)
        info = json.loads(self._source().reveal())
        if not isinstance(info, dict) or info.get("type") != "service_account":
            raise ValueError("not a key of a service account")
        # A key file names the address that its assertions are sent to; only Google's is believed.
        info = {**info, "token_uri": _TOKEN_URI}
        return service_account.Credentials.from_service_account_info(info, scopes=[CLOUD_PLATFORM])


def _federated(federation: Federation, own: OwnIdentity) -> Credentials:
    return identity_pool.Credentials(
        audience=federation.audience,
        subject_token_type=_JWT,
        subject_token_supplier=_Supplier(federation.asked_for, own),
        scopes=[CLOUD_PLATFORM],
    )


class _Supplier(identity_pool.SubjectTokenSupplier):
    """google-auth's question for a subject token, answered with the broker's own JWT-SVID."""

    def __init__(self, audience: str, own: OwnIdentity) -> None:
        self._audience = audience
        self._own = own

    def get_subject_token(self, context: object, request: object) -> str:
        """Part of google-auth's interface. Raises BrokerError."""
        return self._own.own_token(self._audience).token.reveal()


def _unusable(why: str) -> GcpFailure:
    return GcpFailure(f"the broker's own credential cannot be had ({why})", sent=False, own_credential=True)
