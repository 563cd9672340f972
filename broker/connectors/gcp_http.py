"""One HTTP exchange with Google Cloud, as google-auth's transport and as the connectors' own calls.

google-auth's stock transport is not used: its errors drop status and ``Retry-After``, carry the upstream's text (a
malformed reply may hold the token), wait for two minutes, and its callers retry. Here every answer that is not 200 and
every broken exchange is a :class:`GcpFailure`, which google-auth lets through; its text is safe to show.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
import urllib3
from google.auth import transport
from requests.adapters import HTTPAdapter

# A longer Retry-After is cut to this, so that a wrong header cannot keep a credential alive for days.
LONGEST_RETRY_AFTER = timedelta(minutes=5)
_NO_CONNECTION = (urllib3.exceptions.NewConnectionError, urllib3.exceptions.ConnectTimeoutError)
# google.rpc.Code by name, and OAuth's error codes (RFC 6749, 5.2): fixed words, so they are told.
_WORD = re.compile(r"[A-Za-z][A-Za-z_]{1,40}\Z", re.ASCII)


class GcpFailure(Exception):
    """An exchange that did not yield what it should. Its text is safe to show."""

    def __init__(
        self,
        what: str,
        *,
        status: int = 0,
        code: str = "",
        sent: bool = True,
        answered: bool = True,
        own_credential: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.status = status  # 0: there was no answer
        self.code = code  # what the upstream called it, one word
        self.sent = sent  # False: no byte of the request reached the upstream
        self.answered = answered  # False: nobody was reached, or what came is no answer
        self.own_credential = own_credential  # it was the broker's own credential that could not be had
        self.retry_after = retry_after

    @property
    def proves_nothing_was_made(self) -> bool:
        """A create that failed like this made nothing: it was never sent, or Google refused it (4xx).

        Google itself, in its own form: a bare status may be of something in front of it.
        """
        return not self.sent or (400 <= self.status < 500 and self.code != "")

    @property
    def not_there(self) -> bool:
        """Google itself says that there is no such thing."""
        return self.status == 404 and self.code == "NOT_FOUND"


class Response(transport.Response):
    """What google-auth reads of an answer."""

    def __init__(self, answer: requests.Response) -> None:
        self._answer = answer

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self._answer.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""
        return self._answer.headers

    @property
    def data(self) -> bytes:
        """The body."""
        return self._answer.content


class GcpTransport(transport.Request):
    """Sends each request once. ``timeout``, in seconds, is for connecting and for each read.

    ``endpoint`` stands in for the host of every URL: a double, or a private endpoint. :meth:`guarded` is for who makes
    something: a caller that stood still for long must not wake up and create it.
    """

    def __init__(self, endpoint: str | None, *, timeout: float, threads: int) -> None:
        self._endpoint = None if endpoint is None else urlsplit(endpoint)
        self._timeout = timeout
        self._session = _session(threads, proxies=endpoint is None)

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> Response:
        """One exchange that was answered with 200. Raises GcpFailure."""
        failure: GcpFailure | None = None
        try:
            answer = self._session.request(
                method,
                self._place(url),
                data=body,
                headers=dict(headers or {}),
                timeout=self._timeout,
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            failure = GcpFailure(
                f"no usable answer ({type(error).__name__})", sent=not _never_left(error), answered=False
            )
        if failure is not None:  # outside the except: the error holds the request with its token
            raise failure
        if answer.status_code != requests.codes.ok:
            raise _refused(answer)
        return Response(answer)

    def guarded(self, before: Callable[[], None]) -> Callable[..., Response]:
        """This transport for one piece of work; ``before`` is called before each request and may raise."""

        def send(*arguments: Any, **named: Any) -> Response:
            before()
            return self(*arguments, **named)

        return send

    def json(self, url: str, token: str, *, method: str = "GET", body: Mapping[str, Any] | None = None) -> Any:
        """The JSON object of one call with a bearer token. Raises GcpFailure."""
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        answer = self(url, method=method, body=data, headers=headers)
        try:
            read = json.loads(answer.data)
        except ValueError:
            read = None
        if not isinstance(read, dict):
            raise GcpFailure("it said success, but not with a JSON object", status=answer.status)
        return read

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _place(self, url: str) -> str:
        if self._endpoint is None:
            return url
        parts = urlsplit(url)
        return urlunsplit((self._endpoint.scheme, self._endpoint.netloc, parts.path, parts.query, ""))


def _session(threads: int, *, proxies: bool) -> requests.Session:
    """Keeps connections and no cookies, and retries nothing: the ledger does the retrying.

    The environment's proxies are used on the way to Google and never before an endpoint that was named.
    """
    session = requests.Session()
    session.trust_env = proxies
    pool = HTTPAdapter(pool_connections=4, pool_maxsize=threads, max_retries=0)
    session.mount("http://", pool)
    session.mount("https://", pool)
    # With trust_env requests would put ~/.netrc before our own header.
    session.auth = lambda request: request
    return session


def _never_left(error: BaseException) -> bool:
    return any(isinstance(each, _NO_CONNECTION) for each in _causes(error))


def _causes(error: BaseException) -> Iterator[object]:
    pending: list[object] = [error]
    while pending:
        each = pending.pop()
        yield each
        if isinstance(each, urllib3.exceptions.MaxRetryError):
            pending.append(each.reason)
        if isinstance(each, requests.RequestException):
            pending += each.args


def _refused(answer: requests.Response) -> GcpFailure:
    code = _code(answer)
    what = f"it answered {answer.status_code}" + (f" {code}" if code else "")
    return GcpFailure(what, status=answer.status_code, code=code, retry_after=_retry_after(answer))


def _code(answer: requests.Response) -> str:
    """The upstream's own word: ``error.status`` of a Google API, or ``error`` of the token endpoint."""
    try:
        said = json.loads(answer.content).get("error")
    except (ValueError, AttributeError):
        return ""
    word = said.get("status") if isinstance(said, dict) else said
    return word if isinstance(word, str) and _WORD.match(word) else ""


def _retry_after(answer: requests.Response) -> timedelta | None:
    stated = answer.headers.get("Retry-After", "").strip()
    if not stated.isascii() or not stated.isdigit():
        return None
    return min(timedelta(seconds=int(stated[:6])), LONGEST_RETRY_AFTER)
