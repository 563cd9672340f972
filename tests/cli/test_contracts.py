"""What people read of a contract's network."""

from __future__ import annotations

from datetime import timedelta

import pytest

from broker.cli.contracts import lines
from broker.client import RevocationContract
from broker.client.model import NetworkBinding

OURS, VPCE, THEIRS = "203.0.113.0/24", "vpce-0a1b2c3d", "198.51.100.0/24"


@pytest.mark.parametrize(
    ("networks", "told"),
    [
        ((), "a network: elsewhere it does not work"),  # of an older broker
        ((NetworkBinding((OURS, VPCE)),), f"a network: it works from {OURS} or {VPCE} alone"),
        (
            (NetworkBinding((OURS, VPCE)), NetworkBinding((THEIRS,))),
            f"a network: it works from {OURS} or {VPCE} and {THEIRS} alone",
        ),
    ],
)
def test_where_it_works(networks: tuple[NetworkBinding, ...], told: str) -> None:
    second = timedelta(seconds=1)
    contract = RevocationContract("EXPIRY_ONLY", "NETWORK", second, second, second, None, "a", "b", networks=networks)
    assert f"{'bound to':<14}  {told}" in list(lines(contract))
