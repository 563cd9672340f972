"""A witness that is a web service: ``POST url`` with a note keeps it, ``GET url`` answers the newest it has.

Kept is what was answered 2xx. Redirects are not followed. The newest is 200 with the note; 204 or 404 where it has
none. The service may be asked to keep the same note twice, and must never forget or replace one. The newest is the one
of the latest time. A service that answers what came last is put right: where an earlier note comes after a later one,
that is sent again.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable

from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, DummyCookieJar, TCPConnector

from broker.audit import note as notes
from broker.config import HttpWitness as Settings
from broker.errors import BrokerError
from broker.ports.trail import OutgoingCheckpoint
from broker.secret import Secret
from broker.witnesses.times import later_than, tells_later


class HttpWitness:
    """A :class:`broker.ports.trail.Witness`. Made on the event loop; :meth:`close` ends it."""

    def __init__(self, settings: Settings, resolve: Callable[[str], Secret]) -> None:
        """Raises OSError where the CA file cannot be read."""
        self._settings = settings
        self._resolve = resolve
        trusted = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))
        self._session = ClientSession(
            connector=TCPConnector(ssl=trusted, limit=1),
            timeout=ClientTimeout(total=settings.timeout.total_seconds()),
            cookie_jar=DummyCookieJar(),
        )

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """POST it; and what is later, if the service has that already."""
        # Of a ledger that was put back under its broker: what comes again must not hide what shows that.
        newest = await self.newest(checkpoint.at_ms)
        await self._post(checkpoint.note)
        if newest is not None and tells_later(newest, checkpoint.at_ms):
            await self._post(newest)

    async def newest(self, after_ms: int) -> str | None:
        """GET it."""
        status, note = await self._ask("GET", {}, None)
        if status in (204, 404):
            return None
        if status != 200:
            raise OSError(f"it answered {status}")
        return note if later_than(note, after_ms) else None

    async def close(self) -> None:
        """Let go of the connection."""
        await self._session.close()

    async def _post(self, note: str) -> None:
        status, _ = await self._ask("POST", {"content-type": "text/plain; charset=utf-8"}, note.encode())
        if not 200 <= status < 300:
            raise OSError(f"it answered {status}")

    async def _ask(self, method: str, headers: dict[str, str], data: bytes | None) -> tuple[int, str]:
        try:
            if self._settings.token is not None:
                headers["authorization"] = f"Bearer {self._resolve(self._settings.token).reveal()}"
            asked = {"user-agent": "jit-broker", **headers}
            async with self._session.request(
                method, self._settings.url, data=data, headers=asked, allow_redirects=False
            ) as answer:
                return answer.status, await _body(answer) if method == "GET" else ""
        except BrokerError as failure:
            raise OSError(failure.message) from None
        except TimeoutError:
            raise OSError("there was no answer in time") from None
        except (ClientError, OSError, ValueError) as failure:
            # By its kind: the text of some quotes the URL, which may hold a token.
            raise OSError(f"the connection failed ({type(failure).__name__})") from None


async def _body(answer: ClientResponse) -> str:
    read = b""
    async for chunk in answer.content.iter_chunked(4096):
        read += chunk
        if len(read) > notes.MOST_CHARACTERS:
            break
    return read.decode("utf-8", "replace")
