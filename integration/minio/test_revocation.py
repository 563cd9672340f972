"""One session is ended at once and for good, and nobody else's; also where MinIO's own answer is not true."""

from __future__ import annotations

from datetime import timedelta
from xml.etree import ElementTree

import pytest
import requests

from broker.connectors.minio_sts import MinioSts
from broker.dev.minio import BROKER_USER, BUCKET, REPORTS, MinioFacts, MinioServer
from broker.errors import UpstreamFailed
from broker.lease.credential import AwsSession
from broker.ports.connectors import NotYet, Refused, Revoked
from broker.secret import Secret
from integration.minio.admin_calls import Key, call
from integration.minio.sessions import CLOCK, ended, held
from tests.connectors.harness_minio import REPORT, minio_connector, reading_one_day, said_to
from tests.connectors.mishap_proxy import Reply, Rule, mishap_proxy
from tests.connectors.support import HOLDER, Ledger, new_attempt
from tests.patience import PATIENCE

GONE = "InvalidAccessKeyId"


async def test_one_session_ends_and_its_siblings_live_on(minio: MinioFacts, connector: MinioSts) -> None:
    first, second = await held(connector), await held(connector)
    client = minio.client(first.session.access_key_id, first.session.secret_access_key, first.session.session_token)
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": REPORT})
    assert requests.get(url, timeout=PATIENCE).content == REPORTS[REPORT]
    outcome = await ended(connector, first)
    assert isinstance(outcome, Revoked)
    assert said_to(minio, first.session) == GONE
    assert requests.get(url, timeout=PATIENCE).status_code == 403
    assert said_to(minio, second.session) == REPORTS[REPORT]
    # Again is the same, by another connector too, as after a restart.
    again = minio_connector(minio)
    assert await ended(again, first) == outcome
    await again.close()


async def test_a_session_from_before_minios_last_start_is_ended(server: MinioServer) -> None:
    """MinIO says 204 and ends nothing: it has forgotten the session, until somebody uses it."""
    connector = minio_connector(server.facts)
    believed, proven = await held(connector), await held(connector)
    await connector.close()
    server.stop()
    minio = server.start()
    key = Key(BROKER_USER, minio.broker_secret.reveal())
    query = {"user": BROKER_USER, "tokenRevokeType": str(believed.handle["attempt"])}
    assert call(minio.endpoint, key, "POST", "revoke-tokens/builtin", query) == (204, "")
    assert said_to(minio, believed.session) == REPORTS[REPORT]
    connector = minio_connector(minio)
    assert isinstance(await ended(connector, proven), Revoked)
    assert said_to(minio, proven.session) == GONE
    assert isinstance(await ended(connector, believed), Revoked)
    assert said_to(minio, believed.session) == GONE
    await connector.close()


async def test_an_agent_can_end_its_siblings_and_no_more(minio: MinioFacts, connector: MinioSts) -> None:
    """What the page warns of: MinIO lets every session end all sessions of its user, whatever its policy."""
    agent, sibling = await held(connector), await held(connector)
    query = {"user": BROKER_USER, "fullRevoke": "true"}
    assert call(minio.endpoint, Key.of(agent.session), "POST", "revoke-tokens/builtin", query) == (204, "")
    assert said_to(minio, sibling.session) == GONE
    # The broker is not shut out by it, and says of the sessions what is true.
    assert isinstance(await ended(connector, sibling), Revoked)
    assert said_to(minio, (await held(connector)).session) == REPORTS[REPORT]


# --------------------------------------------------------------------------- answers that are lost, or not MinIO's


async def test_a_session_whose_answer_was_lost_is_ended_by_its_revoke_type(
    minio: MinioFacts, connector: MinioSts
) -> None:
    answers: list[bytes] = []

    def lose(reply: Reply) -> Reply | None:
        answers.append(reply.body)
        return None

    with mishap_proxy(minio.endpoint, keeps_host=True) as (proxy, address):
        proxy.rules = [Rule("POST /", change=lose)]
        behind, ledger = minio_connector(minio, address), Ledger()
        expires_at = CLOCK.now() + timedelta(minutes=5)
        ledger.handle = behind.prepare(reading_one_day(), new_attempt(), HOLDER, expires_at)
        with pytest.raises(UpstreamFailed) as caught:
            await behind.issue(ledger.handle, reading_one_day(), expires_at, ledger.checkpoint)
        assert not caught.value.outcome_known
        assert proxy.seen == ["POST /"]  # one try, so that one outcome is one outcome
        await behind.close()
    made = _session(minio, answers[0])
    assert said_to(minio, made) == REPORTS[REPORT]
    context = ledger.context(created_at=CLOCK.now() - timedelta(minutes=1), outcome_known=False)
    assert isinstance(await connector.revoke(ledger.handle, context), Revoked)
    assert said_to(minio, made) == GONE


def _session(minio: MinioFacts, answer: bytes) -> AwsSession:
    found = {each.tag.rpartition("}")[2]: each.text or "" for each in ElementTree.fromstring(answer).iter()}
    return AwsSession(
        found["AccessKeyId"], Secret(found["SecretAccessKey"]), Secret(found["SessionToken"]), "us-east-1", "", ""
    )


async def test_a_word_that_is_not_kept_is_no_proof(minio: MinioFacts, connector: MinioSts) -> None:
    made = await held(connector)
    with mishap_proxy(minio.endpoint, keeps_host=True) as (proxy, address):
        lied_to = minio_connector(minio, nodes=(address,))
        for answer, outcome in [
            (Reply(204), NotYet("minio could not end it: it said that the session was ended, but it is still there.")),
            (Reply(200, b"<html>welcome"), NotYet("minio could not end it: it answered HTTP 200.")),
            (Reply(403, b'{"Code": "AccessDenied"}'), Refused),
            (Reply(429, b"", {"Retry-After": "7"}), timedelta(seconds=7)),
        ]:
            proxy.rules = [Rule("POST /minio/admin/v3/revoke-tokens", instead=answer)]
            got = await ended(lied_to, made)
            if isinstance(outcome, timedelta):
                assert isinstance(got, NotYet)
                assert got.retry_after == outcome
            else:
                assert got == outcome or type(got) is outcome
            assert said_to(minio, made.session) == REPORTS[REPORT]
        await lied_to.close()
    assert isinstance(await ended(connector, made), Revoked)
    assert said_to(minio, made.session) == GONE
