"""One stack for all of this directory's stories: brokerd, OpenBao with every engine, a double of Kubernetes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest

from broker.cli.demo.world import World
from integration.stacks import stack_world
from integration.vault.engines import Engines
from tests.connectors.kubernetes_double import Cluster, kubernetes_double
from tests.dev.watched import passable_directory


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with kubernetes_double() as running:
        yield running


@pytest.fixture
async def world(cluster: Cluster) -> AsyncIterator[World]:
    with passable_directory() as directory:
        engines = Engines(cluster)
        async with stack_world(directory / "stack", None, engines.change) as made:
            await asyncio.to_thread(engines.set_up, made)
            yield made
