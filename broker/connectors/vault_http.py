"""One HTTP exchange with Vault or OpenBao: a JSON object, or a :class:`VaultFailure` that says what is known.

This is hvac's own extension point, an adapter. hvac's stock adapters are not used because their
errors drop the ``Retry-After`` header, carry the upstream's raw text (which may hold a secret), and
let other exceptions through for a malformed error body. And they go by way of ``requests``, which takes
two thirds as long again for an exchange as urllib3 beneath it; a login is three of them, one after the other.

Nothing raised here holds a secret: upstream text is only searched for phrases from a fixed list, and causes are
cut off (a bad header's message holds the token itself).
"""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import certifi
import urllib3
from hvac.adapters import Adapter
from urllib3.exceptions import ConnectTimeoutError, HTTPError, LocationValueError, NewConnectionError, ReadTimeoutError

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
# To how many servers connections are kept: Vault is one; MinIO's nodes are asked one by one.
_SERVERS = 16


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


def open_pool(threads: int, ca_file: str | None) -> urllib3.PoolManager:
    """Connections for ``threads`` threads: kept, without cookies, environment or retries.

    A retry inside the library would turn "sent twice" into one outcome; the ledger does the retrying. Each request says
    that it follows no redirect. ``ca_file``: absent, who Mozilla's list says.
    """
    return urllib3.PoolManager(
        _SERVERS, maxsize=threads, retries=False, cert_reqs="CERT_REQUIRED", ca_certs=ca_file or certifi.where()
    )


class VaultAdapter(_JsonAdapter):
    """hvac's adapter for one token, or none. The pool of connections is shared between adapters.

    ``timeout`` is for connecting and for each read, in seconds. ``namespace``: where paths begin, empty for the root.
    """

    def __init__(
        self,
        pool: urllib3.PoolManager,
        base_uri: str,
        token: Secret | None,
        *,
        timeout: float,
        namespace: str = "",
    ) -> None:
        # hvac's own would make a session of requests for each adapter; what its API classes use of one is all here.
        self.pool = pool
        self.base_uri = base_uri
        self.token = "" if token is None else token.reveal()
        self.namespace = namespace
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
            response = self.pool.request(
                method.upper(),
                self._address(url, kwargs.pop("params", None)),
                headers={**(headers or {}), **self._own_headers()},
                # A redirect would carry the token to whoever is named there.
                redirect=False,
                timeout=self.timeout_seconds,
                **kwargs,
            )
        except (HTTPError, http.client.HTTPException) as error:
            failure = _broken_off(error)
        except (OSError, ValueError) as error:
            # Such as a token that no header can hold: refused before anything is sent.
            failure = VaultFailure(Known.UNKNOWN, f"the request failed ({type(error).__name__})")
        else:
            return _read(response)
        raise failure

    def _address(self, url: str, query: Mapping[str, str] | None) -> str:
        whole = self.urljoin(self.base_uri, url)
        return f"{whole}?{urlencode(query)}" if query else whole

    def _own_headers(self) -> dict[str, str]:
        headers = {"X-Vault-Request": "true"}
        if self.token:
            headers["X-Vault-Token"] = self.token
        if self.namespace:
            headers["X-Vault-Namespace"] = self.namespace
        return headers


def _read(response: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        body = json.loads(response.data) if response.data.strip() else {}
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        body = None
    if 200 <= response.status < 300:
        if body is None:
            raise VaultFailure(
                Known.UNKNOWN, "the answer is no JSON object, although it says success", status=response.status
            )
        return body
    raise _refusal(response, body)


def _refusal(response: urllib3.BaseHTTPResponse, body: dict[str, Any] | None) -> VaultFailure:
    status = response.status
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
    if any(isinstance(each, ssl.SSLCertVerificationError) for each in error.args):
        return VaultFailure(Known.NOT_SENT, "its certificate could not be verified")
    if isinstance(error, NewConnectionError | ConnectTimeoutError):
        return VaultFailure(Known.NOT_SENT, f"no connection could be made ({name})")
    if isinstance(error, LocationValueError):
        return VaultFailure(Known.NOT_SENT, f"the request could not be formed ({name})")
    if isinstance(error, ReadTimeoutError):
        return VaultFailure(Known.UNKNOWN, "no answer in time")
    return VaultFailure(Known.UNKNOWN, f"the exchange broke off ({name})")


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
