"""What a template's own network makes of its connector's contract."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.connectors.contracts import contract_of
from broker.connectors.vault_aws_user import CONTRACT
from broker.lease.credential import Binding
from broker.ports.deploys import ConnectorSpec

OURS, VPCE = "203.0.113.0/24", "vpce-0a1b2c3d"
BOUND = replace(CONTRACT, binding=Binding.NETWORK, networks=((OURS,),))


@pytest.mark.parametrize(
    "grant", [{}, {"network": None}, {"network": {}}, {"network": {"source_ips": []}}, {"role": "r"}]
)
def test_without_one_it_is_the_connectors(grant: dict[str, object]) -> None:
    assert CONTRACT.of_grant(grant) == CONTRACT
    assert BOUND.of_grant(grant) == BOUND


def test_it_binds_what_the_connector_leaves_open() -> None:
    told = CONTRACT.of_grant({"network": {"source_ips": [OURS], "source_vpces": [VPCE]}})
    assert told == replace(CONTRACT, binding=Binding.NETWORK, networks=((OURS, VPCE),))


def test_it_narrows_and_never_replaces_the_connectors() -> None:
    told = BOUND.of_grant({"network": {"source_vpces": [VPCE]}})
    assert told.networks == ((OURS,), (VPCE,))
    assert told.binding is Binding.NETWORK


def test_a_set_that_does_not_run_tells_the_same_places() -> None:
    settings = {"network": {"source_ips": [OURS], "source_vpces": [VPCE]}}
    assert contract_of(ConnectorSpec("aws", "aws-sts", settings, "d")).networks == ((OURS, VPCE),)
    assert contract_of(ConnectorSpec("aws", "aws-sts", {"network": None}, "d")).networks == ()
