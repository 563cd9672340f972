"""Free TCP ports on loopback, kept from one start to the next where they are still free."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

from broker.errors import NotReady, Reason

LOOPBACK = "127.0.0.1"
# Below the ports that systems hand to outgoing connections (32768 up on Linux, 49152 up elsewhere), so
# that no connection takes a port between our look and the server's bind.
_FIRST, _COUNT, _TRIES = 20_000, 12_000, 100
# What this process has given away: whoever has it may not have bound it yet, and nobody else shall get it meanwhile.
_given: set[int] = set()


def free_port(remembered: Path | None = None) -> int:
    """A port that nobody on 127.0.0.1 listens on: the one in the file ``remembered`` if still free; else a new one.

    Another program's server may take it before the caller's does; that one then fails to bind and says so in its
    log. Raises :class:`NotReady` if no port is found.
    """
    if remembered is not None and remembered.exists():
        port = int(remembered.read_text())
        if _is_free(port):
            _given.add(port)
            return port
    for _ in range(_TRIES):
        port = _FIRST + secrets.randbelow(_COUNT)
        if port not in _given and _is_free(port):
            _given.add(port)
            break
    else:
        raise NotReady(
            Reason.UPSTREAM_UNAVAILABLE,
            f"No free port was found on {LOOPBACK} in {_TRIES} tries.",
            metadata={"tries": str(_TRIES)},
        )
    if remembered is not None:
        remembered.write_text(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
