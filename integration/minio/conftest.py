"""What the stories share: MinIO built from its Go module, one server, and a connector to it."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.connectors.minio_sts import MinioSts
from broker.dev.loopback import free_port
from broker.dev.minio import MinioFacts, MinioServer
from integration.minio.cluster import two_nodes
from tests.connectors.harness import Harness
from tests.connectors.harness_minio import minio_connector, minio_harness
from tests.dev.watched import passable_directory

BUILD = Path(__file__).parent / "binaries" / "build"


@pytest.fixture(scope="session")
def binary() -> Path:
    """The MinIO server; built if nobody did so before."""
    done = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip()) / "minio"


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    """Where everything writes."""
    with passable_directory() as place:
        yield place


@pytest.fixture(scope="session")
def server(binary: Path, directory: Path) -> Iterator[MinioServer]:
    with MinioServer(binary, directory / "minio") as running:
        yield running


@pytest.fixture(scope="session")
def cluster(binary: Path, directory: Path) -> Iterator[tuple[MinioFacts, MinioFacts]]:
    with two_nodes(binary, directory) as nodes:
        yield nodes


@pytest.fixture
def minio(server: MinioServer) -> MinioFacts:
    """As it is now: a story may have started it anew."""
    return server.facts


@pytest.fixture
async def connector(minio: MinioFacts) -> AsyncIterator[MinioSts]:
    made = minio_connector(minio)
    yield made
    await made.close()


@pytest.fixture
def dead_address() -> str:
    """An address on loopback where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
async def harness(minio: MinioFacts, dead_address: str) -> AsyncIterator[Harness]:
    """For the contract suite, which is the one of ``tests/connectors``."""
    made = minio_harness(minio, dead_address)
    async with made.stack:
        yield made
