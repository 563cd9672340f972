"""One POST of one event, and what its answer means.

Only a 2xx is a delivery. Redirects are not followed: the event would go, signed, to where the operator did not send it.
The answer's body is not read. Nothing of the URL beyond the destination's name reaches a log: it may hold a token.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from broker.audit.cloud_event import CONTENT_TYPE, CloudEvent
from broker.config import Webhook
from broker.errors import BrokerError
from broker.ports.clock import Clock
from broker.secret import Secret
from broker.webhooks.signing import headers

# 410: the receiver says that it is gone for good. That is for operators to believe; until then it is asked seldom.
GONE, GONE_WAIT = 410, timedelta(minutes=10)
# A receiver's own Retry-After is kept to, up to here.
LONGEST_WAIT = timedelta(hours=1)


class NotDelivered(Exception):
    """This try failed; ``retry_after`` is the receiver's wish, if it has one."""

    def __init__(self, why: str, retry_after: timedelta | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after = retry_after


class Sender:
    """Sends to one destination, one event at a time. Made on the event loop; :meth:`close` ends it."""

    def __init__(self, webhook: Webhook, resolve: Callable[[str], Secret], clock: Clock) -> None:
        """Raises OSError where the CA file cannot be read."""
        self._webhook = webhook
        self._resolve = resolve
        self._clock = clock
        trusted = ssl.create_default_context(cafile=None if webhook.ca_file is None else str(webhook.ca_file))
        self._session = ClientSession(
            connector=TCPConnector(ssl=trusted, limit=1),
            timeout=ClientTimeout(total=webhook.timeout.total_seconds()),
            cookie_jar=DummyCookieJar(),
        )

    async def send(self, event: CloudEvent) -> None:
        """Deliver ``event``, or raise :class:`NotDelivered`. The secrets are read anew each time."""
        try:
            secrets = [(each, self._resolve(each)) for each in self._webhook.secrets]
            signed = headers(secrets, event.id, event.body, self._clock.now())
        except BrokerError as failure:
            raise NotDelivered(failure.message) from None
        try:
            async with self._session.post(
                self._webhook.url,
                data=event.body,
                headers={"content-type": CONTENT_TYPE, "user-agent": "jit-broker", **signed},
                allow_redirects=False,
            ) as answer:
                status, wish = answer.status, _wish(answer.headers.get("retry-after", ""), self._clock.now())
        except TimeoutError:
            raise NotDelivered("there was no answer in time") from None
        except (ClientError, OSError, ValueError) as failure:
            # By its kind: the text of some quotes the URL.
            raise NotDelivered(f"the connection failed ({type(failure).__name__})") from None
        if 200 <= status < 300:
            return
        if status == GONE:
            raise NotDelivered("it answered 410: gone", max(wish or GONE_WAIT, GONE_WAIT))
        told = " (redirects are not followed)" if 300 <= status < 400 else ""
        raise NotDelivered(f"it answered {status}{told}", wish)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._session.close()


def _wish(retry_after: str, now: datetime) -> timedelta | None:
    """Retry-After in either form (RFC 9110, 10.2.3), bounded; None for nonsense."""
    if retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 10:
        return min(timedelta(seconds=int(retry_after)), LONGEST_WAIT)
    try:
        # The one form of a date that may be sent (5.6.7).
        until = datetime.strptime(retry_after, "%a, %d %b %Y %H:%M:%S GMT").replace(tzinfo=UTC)
    except ValueError:
        return None
    return min(max(until - now, timedelta(0)), LONGEST_WAIT)
