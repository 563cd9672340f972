"""Free TCP ports on loopback, kept from one start to the next where they are still free."""

from __future__ import annotations

import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"


def free_port(remembered: Path | None = None) -> int:
    """A port that nobody on 127.0.0.1 listens on: the one in the file ``remembered`` if still free.

    Somebody may take it before the caller does; a server that then fails to bind says so in its log.
    """
    if remembered is not None and remembered.exists():
        port = int(remembered.read_text())
        if _is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port = int(probe.getsockname()[1])
    if remembered is not None:
        remembered.write_text(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
