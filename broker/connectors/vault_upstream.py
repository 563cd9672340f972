"""Where an engine of Vault or OpenBao is, as its settings say it, and the calls to it."""

from __future__ import annotations

from typing import Protocol

from broker.connectors.vault_calls import BrokerToken, VaultCalls


class Upstream(Protocol):
    """What every engine is told of where it is. Times in seconds."""

    @property
    def address(self) -> str:
        """Its URL."""
        ...

    @property
    def mount(self) -> str:
        """Where the engine is mounted."""
        ...

    @property
    def ca_file(self) -> str | None:
        """Whom to believe instead of the system's roots."""
        ...

    @property
    def namespace(self) -> str:
        """Where every path begins; empty: the root."""
        ...

    @property
    def timeout(self) -> float:
        """For connecting and for each read."""
        ...

    @property
    def threads(self) -> int:
        """At most so many calls at a time."""
        ...


class LeasingUpstream(Upstream, Protocol):
    """And what an engine with leases is told, for the tokens of attempts."""

    @property
    def token_role(self) -> str:
        """The token role that makes one orphan token per attempt."""
        ...

    @property
    def policy_prefix(self) -> str:
        """Before the role's name: the policy of that token."""
        ...


def open_calls(upstream: Upstream, token: BrokerToken) -> VaultCalls:
    """The calls to this upstream; nothing is connected yet."""
    return VaultCalls(
        upstream.address,
        token,
        timeout=upstream.timeout,
        threads=2 * upstream.threads,
        ca_file=upstream.ca_file,
        namespace=upstream.namespace,
    )
