"""What a login needs to be told, and what it needs of the world it runs in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from broker.client.login.http import ProviderHttp
from broker.errors import InvalidInput, Reason

ISSUER = "BROKER_OIDC_ISSUER"
CLIENT_ID = "BROKER_OIDC_CLIENT_ID"
# OpenID Connect Core 1.0, section 5.4; `groups` and `offline_access` are asked for where the provider has them.
_SCOPES = ("openid", "profile", "email")
_WHERE_THERE = ("groups", "offline_access")


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """At whose provider, as which application, and how.

    ``scopes``: empty means the usual ones. ``acr_values``: how strongly to be authenticated, in the
    provider's words, separated by spaces.
    ``redirect_port``: 0 means any free one (RFC 8252, 7.3); a number is for providers that insist on one.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ()
    acr_values: str = ""
    login_hint: str = ""
    redirect_port: int = 0
    device: bool = False
    timeout: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        for variable, value in ((ISSUER, self.issuer), (CLIENT_ID, self.client_id)):
            if not value:
                raise InvalidInput(
                    Reason.CONFIG_INVALID,
                    f"{variable} is not set.",
                    hint=f"Set {variable} (or --{variable.removeprefix('BROKER_').lower().replace('_', '-')}); whoever "
                    "operates the broker tells you both, from `people.issuers` in its configuration.",
                )

    def wanted_scopes(self, supported: frozenset[str] | None, *, lasting: bool) -> tuple[str, ...]:
        """What to ask for; ``lasting``: also what renews it. A provider that does not say gets the usual ones alone."""
        if self.scopes:
            asked: tuple[str, ...] = ("openid", *(each for each in self.scopes if each != "openid"))
        else:
            asked = (*_SCOPES, *(each for each in _WHERE_THERE if each in (supported or ())))
        return asked if lasting else tuple(each for each in asked if each != "offline_access")


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The world a login runs in. ``pause`` waits for seconds; ``tell`` shows a line to the person.

    ``open_browser`` shows a URL to the person and says whether it could.
    """

    now: Callable[[], datetime]
    pause: Callable[[float], None]
    tell: Callable[[str], None]
    open_browser: Callable[[str], bool]
    http: ProviderHttp = field(default_factory=ProviderHttp)
