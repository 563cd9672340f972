"""Which broker: its address, the DNS name its certificate must have, and the trust domain it is of.

Stock gRPC clients can match only DNS names, never a SPIFFE ID, so the broker's own SVID carries one. The
roots of exactly one trust domain and this name together are what we believe a broker by: our own trust
domain, unless another one is named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from broker.errors import InvalidInput, Reason
from broker.identity.spiffe_id import is_trust_domain

DEFAULT_SERVER_NAME = "brokerd"

_ADDRESS = re.compile(r"(?:dns:(?:///)?)?(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):(?P<port>[0-9]{1,5})\Z", re.ASCII)
_DNS_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Target:
    """Host and port to connect to, and the DNS name to demand there."""

    host: str
    port: int
    server_name: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def parse(cls, address: str, server_name: str = DEFAULT_SERVER_NAME) -> Target:
        """``host:port`` or ``[IPv6]:port``. Raises :class:`InvalidInput` (CONFIG_INVALID)."""
        if not address:
            raise _refused("There is no broker address.", "Set BROKER_ADDRESS (or --address) to host:port.")
        match = _ADDRESS.match(address)
        if not match or not 0 < int(match["port"]) < 65536:
            raise _refused(f"{ascii(address)[:200]} is not a broker address.", "Write host:port, or [IPv6]:port.")
        if not _DNS_NAME.match(server_name) or len(server_name) > 253:
            raise _refused(
                f"{ascii(server_name)[:200]} is not a DNS name.",
                "Set BROKER_SERVER_NAME (or --server-name) to a name in the broker's certificate.",
            )
        return cls(match["host"].strip("[]"), int(match["port"]), server_name)


def broker_trust_domain(text: str) -> str:
    """``text``, if it can be the name of the broker's trust domain; empty stands for the caller's own.

    Raises :class:`InvalidInput` (CONFIG_INVALID): another spelling is never taken for the name.
    """
    if text and not is_trust_domain(text):
        raise _refused(
            f"{ascii(text)[:200]} is not the name of a trust domain.",
            "Set BROKER_TRUST_DOMAIN (or --trust-domain) to the broker's trust domain as in prod.example.org: lower "
            "case, without spiffe://; or leave it out where it is your own.",
        )
    return text


def _refused(message: str, hint: str) -> InvalidInput:
    return InvalidInput(Reason.CONFIG_INVALID, message, hint=hint)
