"""How many connections each port takes, so that whoever opens them leaves files and sockets to everybody else.

Belongs here: the shares. Each is of what the system lets this process have open (RLIMIT_NOFILE); what is left over is
for the ledger, and for the way to the upstreams: nobody at a door keeps a credential from being ended. One above a
port's share is closed as soon as it is there. What says nothing is closed by ``tls.SERVER_OPTIONS``' handshake timeout.
"""

from __future__ import annotations

import resource

OPTION = "grpc.max_allowed_incoming_connections"
# An eighth for each of: people, automation, proxies. An eighth is left.
AGENTS = 4
OTHERS = 1
_PARTS = 8
# gRPC's own: none.
_UNBOUNDED = 2**31 - 1


def take_what_there_is() -> None:
    """Let this process have as much open as it is allowed to. Without effect where it has that already."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def capped(parts: int) -> tuple[str, int]:
    """The option of a port that has so many eighths of what may be open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _UNBOUNDED if soft == resource.RLIM_INFINITY else min(_UNBOUNDED, soft * parts // _PARTS)
    return OPTION, max(1, most)


def at_once(max_concurrent_rpcs: int) -> int:
    """RPCs that the transport lets in: the door answers what is more than ``max_concurrent_rpcs``, the transport, which
    gives no reason, what is more than twice as many.
    """
    return 2 * max_concurrent_rpcs
