"""Two servers, one cluster: what one forgot the other still knows, so each is told."""

from __future__ import annotations

from broker.dev.minio import REPORTS, MinioFacts
from broker.ports.connectors import Revoked
from integration.minio.sessions import ended, held
from tests.connectors.harness_minio import REPORT, minio_connector, said_to


async def test_every_node_is_told(cluster: tuple[MinioFacts, MinioFacts]) -> None:
    one, other = cluster
    short, whole = minio_connector(one), minio_connector(one, nodes=(one.endpoint, other.endpoint))
    assert await whole.examine() == []
    made = await held(short)
    assert said_to(one, made.session) == said_to(other, made.session) == REPORTS[REPORT]
    # What the page warns of: nodes that the settings do not name keep what they have in memory.
    assert isinstance(await ended(short, made), Revoked)
    assert said_to(one, made.session) == "InvalidAccessKeyId"
    assert said_to(other, made.session) == REPORTS[REPORT]
    outcome = await ended(whole, made)
    assert isinstance(outcome, Revoked)
    assert outcome.observed["nodes"] == 2
    assert said_to(one, made.session) == said_to(other, made.session) == "InvalidAccessKeyId"
    for connector in (short, whole):
        await connector.close()
