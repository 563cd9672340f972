"""One GET of one small document, bounded in every direction.

Only a 200 counts. Redirects are not followed: they would take the keys from where no operator said they are. No
cookies, no proxy of somebody's environment; the answer is read up to a limit, all of it within one deadline.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

from aiohttp import ClientError, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

# Large providers' key sets have some 10 KiB.
MAX_BYTES = 256 * 1024
SECONDS = 5.0


class NotFetched(Exception):
    """There is no such document now. Says why, quoting nothing that was sent."""


# The bytes at a URL. Raises :class:`NotFetched`.
Fetch = Callable[[str], Awaitable[bytes]]


@cache
def _of_the_system() -> ssl.SSLContext:
    """Reading the system's CA certificates takes longer than all else of a start: once for all providers."""
    return ssl.create_default_context()


class Fetcher:
    """Fetches for one provider. Made and used on the event loop; :meth:`close` ends it."""

    def __init__(self, ca_file: Path | None = None) -> None:
        """``ca_file`` has the CA certificates (PEM) to believe instead of the system's. Raises OSError for it."""
        trusted = _of_the_system() if ca_file is None else ssl.create_default_context(cafile=str(ca_file))
        self._session = ClientSession(
            connector=TCPConnector(ssl=trusted, limit=1),
            timeout=ClientTimeout(total=SECONDS),
            cookie_jar=DummyCookieJar(),
            headers={"user-agent": "jit-broker", "accept": "application/json"},
        )

    async def __call__(self, url: str) -> bytes:
        """As :data:`Fetch`."""
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                if answer.status != 200:
                    told = " (redirects are not followed)" if 300 <= answer.status < 400 else ""
                    raise NotFetched(f"answered {answer.status}{told}")
                found = bytearray()
                async for chunk in answer.content.iter_any():
                    found += chunk
                    if len(found) > MAX_BYTES:
                        raise NotFetched(f"sent more than {MAX_BYTES} bytes")
                return bytes(found)
        except TimeoutError:
            raise NotFetched(f"did not answer within {SECONDS:g} s") from None
        except (ClientError, OSError, ValueError) as failure:
            raise NotFetched(f"could not be reached ({type(failure).__name__})") from None

    async def close(self) -> None:
        """Let go of the connection."""
        await self._session.close()
