"""Upstreams for tests of connectors: the double of AWS, a dead address, one harness per adapter."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from moto.server import ThreadedMotoServer

from broker.dev.loopback import free_port
from broker.dev.minio import MinioFacts
from broker.secret import Secret
from tests.connectors.harness import Harness, aws_harness, fake_harness, vault_harness
from tests.connectors.harness_minio import minio_harness
from tests.connectors.minio_double import minio_double


@pytest.fixture(scope="session")
def aws_double() -> Iterator[str]:
    """moto in a thread: a double that enforces neither policies nor trust; yields its address."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@pytest.fixture
def minio() -> Iterator[MinioFacts]:
    """A double of MinIO that enforces no policy; the real one runs this suite in ``integration/minio``."""
    with minio_double() as double:
        yield MinioFacts(double.address, Secret("root-password"), Secret("secret-of-the-broker"))


@pytest.fixture
def dead_address() -> str:
    """An address on loopback where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(params=["fake", "vault-database", "aws-sts", "minio-sts"])
async def harness(request: pytest.FixtureRequest, dead_address: str) -> AsyncIterator[Harness]:
    """Each adapter in turn."""
    match request.param:
        case "fake":
            made = fake_harness()
        case "vault-database":
            made = vault_harness(request.getfixturevalue("openbao_server"), dead_address)
        case "minio-sts":
            made = minio_harness(request.getfixturevalue("minio"), dead_address)
        case _:
            made = aws_harness(request.getfixturevalue("aws_double"), dead_address)
    async with made.stack:
        yield made
