"""An ID token judged here by the very rules the broker will judge it by, so that what is wrong is known at once.

Belongs here: the provider's keys, fetched when they are needed, and ``broker.identity.id_token.verify``. What only
the broker's configuration knows (groups, strength) only the broker judges.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.client.login.http import ProviderHttp, misbehaved
from broker.client.login.provider import Provider
from broker.identity.id_token import IdToken, Issuer, verify
from broker.identity.oidc_keys import KeySet, UnfitKeySet
from broker.secret import Secret


def provider_keys(http: ProviderHttp, provider: Provider) -> KeySet:
    """What the provider signs with now. Raises :class:`NotReady` (IDENTITY_PROVIDER_*)."""
    try:
        return KeySet.from_jwks(http.get_bytes(provider.jwks_uri))
    except UnfitKeySet as error:
        raise misbehaved(provider.jwks_uri, f"its key set {error}") from None


def verified(
    http: ProviderHttp,
    provider: Provider,
    client_id: str,
    token: Secret,
    now: datetime,
    *,
    nonce: str | None,
    max_age: timedelta | None = None,
    keys: KeySet | None = None,
) -> IdToken:
    """Whom ``token`` names, by ``keys`` if they are at hand.

    Raises :class:`Unauthenticated` (ID_TOKEN_*), :class:`NotReady` (IDENTITY_PROVIDER_*).
    """
    issuer = Issuer(provider.issuer)
    keys = keys or provider_keys(http, provider)
    return verify(token.reveal(), issuer, keys, now, audience=client_id, nonce=nonce, max_age=max_age)
