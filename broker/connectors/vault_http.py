"""One HTTP exchange with Vault or OpenBao: a JSON object, or a :class:`VaultFailure` that says what is known.

This is hvac's own extension point, an adapter. hvac's stock adapters are not used because their
errors drop the ``Retry-After`` header, carry the upstream's raw text (which may hold a secret), and
let other exceptions through for a malformed error body. Nothing raised here holds a secret: upstream
text is only searched for phrases from a fixed list, and causes are cut off (a ``requests`` exception
holds the request with its token; a bad header's message holds the token itself).
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Iterator, Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, Any

import requests
import urllib3
from hvac.adapters import Adapter
from requests.adapters import HTTPAdapter

from broker.secret import Secret

if TYPE_CHECKING:
    _JsonAdapter = Adapter[dict[str, Any]]
else:
    _JsonAdapter = Adapter

# A longer Retry-After is cut to this, so that a wrong header cannot keep a credential alive for days.
LONGEST_RETRY_AFTER = timedelta(minutes=5)
# Phrases of the server that tell an operator something and can hold nothing secret.
_TELLING = re.compile(
    r"permission denied|invalid lease|lease not found|invalid accessor|unknown role|no handler for route"
    r"|is sealed|rate limit|not initialized|connection refused|SQLSTATE [0-9A-Z]{5}"
)
_NO_CONNECTION = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
_ILL_FORMED = (requests.exceptions.InvalidURL, requests.exceptions.InvalidHeader, requests.exceptions.InvalidSchema)


class Known(StrEnum):
    """What a failed exchange proves."""

    NOT_SENT = "NOT_SENT"  # no byte of the request reached the upstream
    UNKNOWN = "UNKNOWN"  # it may have been carried out
    REJECTED = "REJECTED"  # the server itself, not something in front of it, answered with an error


class VaultFailure(Exception):
    """An exchange that did not yield what it should. Its text is safe to show."""

    def __init__(
        self,
        known: Known,
        what: str,
        *,
        status: int = 0,
        errors: int = 0,
        told: tuple[str, ...] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(what)
        self.known = known
        self.what = what
        self.status = status  # 0: there was no answer
        self.errors = errors  # how many the server listed
        self.told = told  # which of the known phrases were in them; the rest may hold anything and is dropped
        self.retry_after = retry_after

    @property
    def proves_nothing_was_made(self) -> bool:
        """A create that failed like this made nothing: it was never sent, or the server refused it (4xx)."""
        return self.known is Known.NOT_SENT or (self.known is Known.REJECTED and 400 <= self.status < 500)

    def says_only(self, phrase: str) -> bool:
        """Whether the server itself listed exactly one error, and it is ``phrase``."""
        return self.known is Known.REJECTED and self.errors == 1 and self.told == (phrase,)

    @property
    def says_nothing(self) -> bool:
        """Whether the server itself answered with an empty list of errors (so it does for an empty folder)."""
        return self.known is Known.REJECTED and self.errors == 0


def open_session(threads: int, ca_file: str | None) -> requests.Session:
    """A session for ``threads`` threads: keeps connections, no cookies, no environment, no retries.

    A retry inside the library would turn "sent twice" into one outcome; the ledger does the retrying.
    """
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    session.verify = ca_file if ca_file is not None else True
    pool = HTTPAdapter(pool_connections=1, pool_maxsize=threads, max_retries=0)
    session.mount("http://", pool)
    session.mount("https://", pool)
    return session


class VaultAdapter(_JsonAdapter):
    """hvac's adapter for one token, or none. The session, with its connections, is shared between adapters.

    ``timeout`` is for connecting and for each read, in seconds. ``namespace``: where paths begin, empty for the root.
    """

    def __init__(
        self,
        session: requests.Session,
        base_uri: str,
        token: Secret | None,
        *,
        timeout: float,
        namespace: str = "",
    ) -> None:
        # An empty text, unlike None, keeps hvac from looking for a namespace in the environment.
        super().__init__(
            base_uri=base_uri, token="" if token is None else token.reveal(), session=session, namespace=namespace
        )
        self.timeout_seconds = timeout

    def get_login_token(self, response: dict[str, Any]) -> str:
        """Part of hvac's interface; the broker does not log in through it."""
        return str(response["auth"]["client_token"])

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        raise_exception: bool = True,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The JSON object of a 2xx answer (empty for one without a body). Raises :class:`VaultFailure`."""
        kwargs.pop("wrap_ttl", None)
        failure: VaultFailure
        try:
            response = self.session.request(
                method,
                self.urljoin(self.base_uri, url),
                headers={**(headers or {}), **self._own_headers()},
                # A redirect would carry the token to whoever is named there.
                allow_redirects=False,
                timeout=self.timeout_seconds,
                **kwargs,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            failure = _broken_off(error)
        except (OSError, ValueError) as error:
            # Such as a token that no header can hold: refused before anything is sent.
            failure = VaultFailure(Known.UNKNOWN, f"the request failed ({type(error).__name__})")
        else:
            return _read(response)
        raise failure

    def _own_headers(self) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers


def _read(response: requests.Response) -> dict[str, Any]:
    try:
        body = json.loads(response.content) if response.content.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = None
    if 200 <= response.status_code < 300:
        if body is None:
            raise VaultFailure(
                Known.UNKNOWN, "the answer is no JSON object, although it says success", status=response.status_code
            )
        return body
    raise _refusal(response, body)


def _refusal(response: requests.Response, body: dict[str, Any] | None) -> VaultFailure:
    status = response.status_code
    listed = body.get("errors") if body else None
    by_the_server = isinstance(listed, list) and all(isinstance(each, str) for each in listed)
    errors: list[str] = listed if by_the_server and listed else []
    told = tuple(dict.fromkeys(match for each in errors for match in _TELLING.findall(each)))
    what = f"answered {status}" + (f" ({', '.join(told)})" if told else "")
    if not by_the_server:
        what += ", not in the server's own form (a proxy?)"
    if 300 <= status < 400:
        what += "; redirects are not followed: configure the address of the active node"
    return VaultFailure(
        Known.REJECTED if by_the_server else Known.UNKNOWN,
        what,
        status=status,
        errors=len(errors),
        told=told,
        retry_after=retry_after_of(response.headers),
    )


def _broken_off(error: Exception) -> VaultFailure:
    name = type(error).__name__
    chain = list(_chain(error))
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in chain):
        return VaultFailure(Known.NOT_SENT, "its certificate could not be verified")
    if any(
        isinstance(each, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError)
        for each in chain
    ):
        return VaultFailure(Known.NOT_SENT, f"no connection could be made ({name})")
    if isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.InvalidHeader | requests.exceptions.InvalidSchema
    ):
        return VaultFailure(Known.NOT_SENT, f"the request could not be formed ({name})")
    if isinstance(error, requests.exceptions.Timeout):
        return VaultFailure(Known.UNKNOWN, "no answer in time")
    return VaultFailure(Known.UNKNOWN, f"the exchange broke off ({name})")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """What is inside: requests wraps urllib3's MaxRetryError, which holds its ``reason``."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += [*each.args, getattr(each, "reason", None), each.__cause__, each.__context__]


def retry_after_of(headers: Mapping[str, str]) -> timedelta | None:
    """RFC 9110, 10.2.3: seconds, or a date (then counted from the answer's own Date)."""
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) <= 9:
        return min(timedelta(seconds=int(value)), LONGEST_RETRY_AFTER)
    try:
        wait = parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))
    except (ValueError, TypeError):
        return None
    return min(max(wait, timedelta(0)), LONGEST_RETRY_AFTER)
