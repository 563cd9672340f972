"""A witness that is a syslog collector: RFC 5424 over TLS (RFC 5425), or over TCP on loopback.

The weakest of them: syslog answers nothing, so that what is sent is known to have reached the other end's kernel, not
its disk; and nothing can be asked back, so that a start is not held against it.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from datetime import UTC, datetime

from broker.config import SyslogWitness as Settings
from broker.ports.trail import OutgoingCheckpoint

# Facility 13, log audit; severity 5, notice (RFC 5424, section 6.2.1).
_PRIORITY = 13 * 8 + 5


class SyslogWitness:
    """A :class:`broker.ports.trail.Witness`. One connection per checkpoint: there is one a minute."""

    def __init__(self, settings: Settings, host: str) -> None:
        """``host``: this machine, as the collector shall know it. Raises OSError for a CA file that cannot be read."""
        self._settings = settings
        self._host = host
        self._tls = None
        if settings.tls:
            self._tls = ssl.create_default_context(cafile=None if settings.ca_file is None else str(settings.ca_file))

    async def add(self, checkpoint: OutgoingCheckpoint) -> None:
        """Send one message, and close in order: a connection that was refused or reset is an error."""
        address = self._settings.address
        try:
            async with asyncio.timeout(self._settings.timeout.total_seconds()):
                reader, writer = await asyncio.open_connection(address.host, address.port, ssl=self._tls)
                try:
                    writer.write(framed(message(checkpoint, self._host)))
                    await writer.drain()
                    if writer.can_write_eof():
                        writer.write_eof()
                        await reader.read()
                finally:
                    writer.close()
                    await writer.wait_closed()
        except TimeoutError:
            raise OSError("it did not take it in time") from None
        except UnicodeError:
            raise OSError(f"{address.host} is no name that DNS can have") from None

    async def newest(self, after_ms: int) -> str | None:
        """Nobody can ask."""
        return None

    async def close(self) -> None:
        """Nothing is held open."""


def message(checkpoint: OutgoingCheckpoint, host: str) -> bytes:
    """One line: the note as JSON text, because many collectors cut at a line's end."""
    at = datetime.fromtimestamp(checkpoint.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    body = json.dumps({"checkpoint": checkpoint.note}, ensure_ascii=True)
    return f"<{_PRIORITY}>1 {at.removesuffix('+00:00')}Z {host} brokerd - audit.checkpoint - {body}".encode()


def framed(line: bytes) -> bytes:
    """Octet counting (RFC 5425, section 4.3; RFC 6587, section 3.4.1)."""
    return b"%d %s" % (len(line), line)


def host_name() -> str:
    """This machine's name in a form that RFC 5424 allows."""
    name = "".join(each for each in socket.gethostname() if "!" <= each <= "~")
    return name[:255] or "-"
