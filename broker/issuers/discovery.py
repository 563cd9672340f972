"""Where a provider says its keys are: its discovery document, read (OpenID Connect Discovery, sections 3 and 4)."""

from __future__ import annotations

from broker.config.fields import secure_url
from broker.identity.strict_json import NotStrictJson, parse_object


class UnfitDiscovery(ValueError):
    """The document is not this provider's, or does not name a place for keys that may be asked."""


def discovery_url(issuer: str) -> str:
    """Where the document is (section 4): the issuer, less a final slash, and the well-known name."""
    return f"{issuer.removesuffix('/')}/.well-known/openid-configuration"


def jwks_uri_of(document: bytes, issuer: str) -> str:
    """The place of the keys. Raises :class:`UnfitDiscovery`, for any bytes whatever.

    The document names its issuer exactly (section 4.3): otherwise one provider could speak for another.
    """
    try:
        told = parse_object(document)
    except NotStrictJson as error:
        raise UnfitDiscovery(f"has a discovery document that {error}") from None
    if told.get("issuer") != issuer:
        raise UnfitDiscovery(f"has the discovery document of another issuer, {ascii(told.get('issuer'))[:200]}")
    uri = told.get("jwks_uri")
    try:
        return secure_url(uri if isinstance(uri, str) else "")
    except ValueError as error:
        raise UnfitDiscovery(f"has a discovery document whose jwks_uri {error}") from None
