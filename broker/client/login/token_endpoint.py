"""The token endpoint: a code, a device code or a refresh token against tokens (RFC 6749, sections 4.1.3, 5 and 6).

Belongs here: what is sent, and telling tokens, an error of OAuth and nonsense apart. Does not belong here: whether
the ID token is what was asked for (``id_claims.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from broker.client.login.http import Answer, ProviderHttp, misbehaved
from broker.client.login.provider import Provider
from broker.errors import Denied, Reason, Unauthenticated
from broker.secret import Secret

# RFC 6749, 4.1.2.1 and 5.2: printable ASCII without quotes; what is told of them is bounded, too.
_MAX_TEXT = 200


@dataclass(frozen=True, slots=True)
class Tokens:
    """What a login brought. The access token is for the provider's own APIs, and nobody here has use for it."""

    id_token: Secret
    refresh_token: Secret | None


class OAuthError(Exception):
    """An error that the provider named: ``code`` as in the RFCs; ``description`` for people, bounded and inert."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code)
        self.code = code
        self.description = description

    def told(self, what: str) -> Unauthenticated | Denied:
        """As what a person is told; ``what`` did not happen."""
        said = f"{self.code}{': ' if self.description else ''}{self.description}"
        if self.code == "access_denied":
            return Denied(
                Reason.LOGIN_REFUSED,
                f"{what}: the login was refused at the identity provider ({said}).",
                hint="Somebody chose not to log in, or the provider does not let you use this application.",
                metadata={"error": self.code},
            )
        return Unauthenticated(
            Reason.LOGIN_FAILED,
            f"{what}: the identity provider answered {said}.",
            hint=_HINTS.get(self.code, "`broker doctor login` looks at the settings."),
            metadata={"error": self.code},
        )


_HINTS: Mapping[str, str] = {
    "invalid_client": "Is BROKER_OIDC_CLIENT_ID an application of this provider, registered as a public (native) one?",
    "unauthorized_client": "The application must be allowed the authorization code or device flow at the provider.",
    "invalid_grant": "What was exchanged is not valid any more: log in again, with `broker login`.",
    "invalid_scope": "Set BROKER_OIDC_SCOPES (or --oidc-scopes) to what the provider has.",
    "login_required": "The provider wants you to log in again.",
    "unmet_authentication_requirements": "The provider cannot authenticate you as strongly as was asked for.",
}


def exchange(http: ProviderHttp, provider: Provider, form: Mapping[str, str]) -> Tokens:
    """The tokens for ``form``. Raises :class:`OAuthError`; :class:`NotReady` (IDENTITY_PROVIDER_*)."""
    answer = http.post(provider.token_endpoint, form)
    if answer.status != 200:
        raise oauth_error(provider.token_endpoint, answer)
    return Tokens(_secret(answer.members, "id_token", provider), _optional(answer.members, "refresh_token", provider))


def oauth_error(url: str, answer: Answer) -> OAuthError:
    """The error in ``answer``. Raises :class:`NotReady` (IDENTITY_PROVIDER_INVALID) if it has none."""
    code = answer.members.get("error")
    if not isinstance(code, str) or not code:
        raise misbehaved(url, f"it answered {answer.status} and named no error")
    return OAuthError(plain(code), plain(answer.members.get("error_description")))


def plain(text: object) -> str:
    """A stranger's text as it may be shown: printable ASCII, bounded; empty for what is no text."""
    if not isinstance(text, str):
        return ""
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text[:_MAX_TEXT])


def _secret(members: Mapping[str, Any], name: str, provider: Provider) -> Secret:
    found = _optional(members, name, provider)
    if found is None:
        raise misbehaved(provider.token_endpoint, f"its answer has no {name}; is the scope openid allowed there")
    return found


def _optional(members: Mapping[str, Any], name: str, provider: Provider) -> Secret | None:
    value = members.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isascii():
        raise misbehaved(provider.token_endpoint, f"the {name} in its answer is no text")
    return Secret(value)
