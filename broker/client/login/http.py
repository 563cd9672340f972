"""HTTP to the OpenID provider: two kinds of calls, and what keeps a third party out of them.

Belongs here: https, or http to this very machine; no redirects, because a token request that is sent on is a secret
given away; bounds on time and size; and answers as JSON in its one reading. Does not belong here: what is asked and
what it means (``provider.py``, ``token_endpoint.py``).
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import IO, Any
from urllib.error import URLError
from urllib.parse import SplitResult, urlencode, urlsplit
from urllib.request import HTTPErrorProcessor, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

from broker.errors import InvalidInput, NotReady, Reason
from broker.identity.strict_json import NotStrictJson, parse_object

# A discovery document has some 5 KiB, a token answer less.
MAX_ANSWER_BYTES = 256 * 1024
_MAX_URL = 2048


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP status, and the JSON object that came with it."""

    status: int
    members: Mapping[str, Any]


class ProviderHttp:
    """Calls to one provider; each takes ``timeout`` seconds at most to answer. Blocking."""

    def __init__(self, timeout: float = 10.0) -> None:
        self._timeout = timeout

    def get(self, url: str) -> Answer:
        """The object at ``url``. Raises :class:`NotReady` (IDENTITY_PROVIDER_*)."""
        return _as_json(url, *self._call(Request(url, headers={"Accept": "application/json"})))  # noqa: S310 - see _call

    def get_bytes(self, url: str) -> bytes:
        """What is at ``url``, as it is. Raises as :meth:`get`, for any status but 200, too."""
        status, body = self._call(Request(url, headers={"Accept": "application/json"}))  # noqa: S310 - see _call
        if status != 200:
            raise misbehaved(url, f"it answered {status}")
        return body

    def post(self, url: str, form: Mapping[str, str]) -> Answer:
        """What answers a form; an error of OAuth (RFC 6749, 5.2) is an answer like any other. Raises as :meth:`get`."""
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        return _as_json(url, *self._call(Request(url, urlencode(form).encode("ascii"), headers)))  # noqa: S310 - see _call

    def send(self, url: str, form: Mapping[str, str]) -> int:
        """The status that answers a form, where the body says nothing. Raises as :meth:`get`."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return self._call(Request(url, urlencode(form).encode("ascii"), headers))[0]  # noqa: S310 - see _call

    def _call(self, request: Request) -> tuple[int, bytes]:
        """Status and body. No other scheme than checked_url allows is ever opened."""
        url = request.full_url
        try:
            with self._opener(checked_url(url)).open(request, timeout=self._timeout) as response:
                return response.status, _bounded(url, response)
        except (OSError, HTTPException, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
            raise _unreachable(url, error) from None

    def _opener(self, parts: SplitResult) -> OpenerDirector:
        # What is on this machine is reached without anybody in between.
        proxies = [ProxyHandler({})] if is_loopback(parts) else []
        # Reading every authority's certificate takes a while, and is for nothing without TLS.
        tls = [HTTPSHandler(context=ssl.create_default_context())] if parts.scheme == "https" else []
        return build_opener(_AsItIs(), *proxies, *tls)


class _AsItIs(HTTPErrorProcessor):
    """Any status is an answer. A redirect is told as the one it is, and not followed."""

    def http_response(self, request: Request, response: Any) -> Any:
        """As it came."""
        return response

    https_response = http_response


def checked_url(text: str, what: str = "The provider's address") -> SplitResult:
    """``text``, if secrets may be sent there: https, or http on loopback. Raises :class:`InvalidInput`."""
    try:
        parts = urlsplit(text)
        fine = bool(parts.hostname) and parts.port != 0 and parts.username is None and not parts.fragment
    except ValueError:
        raise unfit(what, text, "is not a URL") from None
    if not fine or len(text) > _MAX_URL or not text.isascii() or not text.isprintable() or " " in text:
        raise unfit(what, text, "is not a plain https URL")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts)):
        raise unfit(what, text, "is not https")
    return parts


def is_loopback(parts: SplitResult) -> bool:
    """Whether the host is this machine: a loopback address, or ``localhost`` (RFC 6761, 6.3)."""
    host = parts.hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bounded(url: str, body: IO[bytes]) -> bytes:
    data = body.read(MAX_ANSWER_BYTES + 1)
    if len(data) > MAX_ANSWER_BYTES:
        raise misbehaved(url, f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
    return data


def _as_json(url: str, status: int, body: bytes) -> Answer:
    try:
        return Answer(status, parse_object(body))
    except NotStrictJson as error:
        raise misbehaved(url, f"it answered {status}, with a body that {error}") from None


def misbehaved(url: str, why: str) -> NotReady:
    """The provider did not do what OpenID Connect says it does."""
    return NotReady(
        Reason.IDENTITY_PROVIDER_INVALID,
        f"The identity provider at {ascii(url)[1:-1][:200]} cannot be used: {why}.",
        hint="Is BROKER_OIDC_ISSUER the issuer's URL, exactly as the provider writes it? `broker doctor login` looks.",
        metadata={"url": url[:200]},
    )


def _unreachable(url: str, error: Exception) -> NotReady:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        why, hint = reason.verify_message, "If its certificate is of an authority of your own, set SSL_CERT_FILE to it."
    else:
        why = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        hint = "Is BROKER_OIDC_ISSUER right, and does this machine reach it (HTTPS_PROXY)?"
    return NotReady(
        Reason.IDENTITY_PROVIDER_UNREACHABLE,
        f"The identity provider did not answer at {ascii(url)[1:-1][:200]}: {str(why)[:200]}.",
        hint=hint,
        metadata={"url": url[:200]},
    )


def unfit(what: str, text: str, why: str) -> InvalidInput:
    """``text``, which is ``what``, cannot be used."""
    return InvalidInput(
        Reason.CONFIG_INVALID,
        f"{what} {ascii(text)[:200]} {why}.",
        hint="Tokens are sent to https alone; http is for a provider on this machine, at 127.0.0.1.",
    )
