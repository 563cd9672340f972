"""What an OpenID provider says of itself, checked before anything is sent to it.

Belongs here: OpenID Connect Discovery 1.0, section 4, and of it what a login needs. Does not belong here: keys
(``broker doctor login`` and the broker verify signatures; a token straight from the token endpoint is believed for
the TLS it came by: OpenID Connect Core 1.0, section 3.1.3.7, rule 6).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.client.login.http import ProviderHttp, checked_url, misbehaved, unfit
from broker.errors import InvalidInput

_WELL_KNOWN = "/.well-known/openid-configuration"


@dataclass(frozen=True, slots=True)
class Provider:
    """One issuer's endpoints. Empty: it has none of that kind."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    device_authorization_endpoint: str = ""
    revocation_endpoint: str = ""
    # None: it does not say.
    scopes: frozenset[str] | None = None
    says_issuer: bool = False  # in each authorization response (RFC 9207)


def discover(issuer: str, http: ProviderHttp) -> Provider:
    """The provider that is ``issuer``.

    Raises :class:`InvalidInput` (CONFIG_INVALID) for what cannot be an issuer, :class:`NotReady` (IDENTITY_PROVIDER_*)
    for one that does not answer, is somebody else, or names endpoints that no secret may be sent to.
    """
    parts = checked_url(issuer, "BROKER_OIDC_ISSUER")
    if "?" in issuer:
        raise unfit("BROKER_OIDC_ISSUER", issuer, "has a query, which no issuer has")
    secure = parts.scheme == "https"
    url = issuer.removesuffix("/") + _WELL_KNOWN
    answer = http.get(url)
    if answer.status != 200:
        raise misbehaved(url, f"it answered {answer.status}")
    said = answer.members
    if said.get("issuer") != issuer:
        # Section 4.3: identical, or another issuer's document could stand in for this one's.
        raise misbehaved(url, f"it says that it is {ascii(said.get('issuer'))[:200]}, and not {issuer!a}")
    return _checked(issuer, url, said, secure)


def _checked(issuer: str, url: str, said: Mapping[str, Any], secure: bool) -> Provider:
    _contains(said, "response_types_supported", "code", url)
    _contains(said, "code_challenge_methods_supported", "S256", url)
    scopes = said.get("scopes_supported")
    return Provider(
        issuer=issuer,
        authorization_endpoint=_endpoint(said, "authorization_endpoint", url, secure),
        token_endpoint=_endpoint(said, "token_endpoint", url, secure),
        jwks_uri=_endpoint(said, "jwks_uri", url, secure),
        device_authorization_endpoint=_endpoint(said, "device_authorization_endpoint", url, secure, needed=False),
        revocation_endpoint=_endpoint(said, "revocation_endpoint", url, secure, needed=False),
        scopes=frozenset(each for each in scopes if isinstance(each, str)) if isinstance(scopes, list) else None,
        says_issuer=said.get("authorization_response_iss_parameter_supported") is True,
    )


def _contains(said: Mapping[str, Any], name: str, value: str, url: str) -> None:
    """A list that is absent says nothing; one that is there and does not have ``value`` says no."""
    listed = said.get(name)
    if listed is not None and (not isinstance(listed, list) or value not in listed):
        raise misbehaved(url, f"its {name} does not have {value}")


def _endpoint(said: Mapping[str, Any], name: str, url: str, secure: bool, *, needed: bool = True) -> str:
    value = said.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str):
        raise misbehaved(url, f"it names no {name}")
    try:
        parts = checked_url(value, f"The {name}")
    except InvalidInput as error:
        raise misbehaved(url, error.message.removesuffix(".")) from None
    if secure and parts.scheme != "https":
        raise misbehaved(url, f"its {name} is not https")
    return value
