"""Upstreams for tests of connectors: doubles, a dead address, one harness per adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from broker.dev.loopback import free_port
from broker.dev.minio import MinioFacts
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import Harness, aws_harness, fake_harness, vault_harness
from tests.connectors.harness_aws_by_policy import aws_by_policy_harness
from tests.connectors.harness_gcp import gcp_harness
from tests.connectors.harness_minio import minio_harness
from tests.connectors.harness_postgresql import postgresql_harness
from tests.connectors.harness_vault_aws_user import Users, aws_user_harness, aws_users
from tests.connectors.harness_vault_kubernetes import kubernetes_harness
from tests.connectors.harness_vault_kv import kv_harness
from tests.connectors.harness_vault_pki import pki_harness
from tests.connectors.harness_vault_ssh import ssh_harness
from tests.connectors.minio_double import minio_double


@pytest.fixture(scope="session")
def users(openbao_server: ConfiguredOpenBao) -> Iterator[Users]:
    """A double of the AWS engine and of IAM, in front of OpenBao."""
    with aws_users(openbao_server.facts.address) as running:
        yield running


@pytest.fixture
def minio() -> Iterator[MinioFacts]:
    """A double of MinIO that enforces no policy; the real one runs this suite in ``integration/minio``."""
    with minio_double() as double:
        yield MinioFacts(double.address, Secret("root-password"), Secret("secret-of-the-broker"))


@pytest.fixture
def dead_address() -> str:
    """An address on loopback where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(
    params=[
        "fake",
        "vault-database",
        "vault-pki",
        "vault-ssh",
        "vault-kv",
        "vault-kubernetes",
        "vault-aws-user",
        "postgresql",
        "aws-sts",
        "aws-sts by policy",
        "minio-sts",
        "gcp-token",
        "gcp-pool",
    ]
)
async def harness(request: pytest.FixtureRequest, dead_address: str) -> AsyncIterator[Harness]:
    """Each adapter in turn."""
    match request.param:
        case "fake":
            made = fake_harness()
        case "vault-database":
            made = vault_harness(request.getfixturevalue("openbao_server"), dead_address)
        case "postgresql":
            made = postgresql_harness(request.getfixturevalue("shop"), dead_address)
        case "aws-sts by policy":
            made = aws_by_policy_harness(request.getfixturevalue("aws_double"), dead_address)
        case "vault-pki":
            made = pki_harness(request.getfixturevalue("openbao_server"), dead_address)
        case "vault-ssh":
            made = ssh_harness(request.getfixturevalue("openbao_server"), dead_address)
        case "vault-kubernetes":
            cluster = request.getfixturevalue("cluster")
            made = kubernetes_harness(request.getfixturevalue("openbao_server"), cluster, dead_address)
        case "vault-aws-user":
            users = request.getfixturevalue("users")
            made = aws_user_harness(request.getfixturevalue("openbao_server"), users, dead_address)
        case "vault-kv":
            made = kv_harness(request.getfixturevalue("openbao_server"), dead_address)
        case "gcp-token" | "gcp-pool":
            made = gcp_harness(request.param, dead_address)
        case "minio-sts":
            made = minio_harness(request.getfixturevalue("minio"), dead_address)
        case _:
            made = aws_harness(request.getfixturevalue("aws_double"), dead_address)
    async with made.stack:
        yield made
