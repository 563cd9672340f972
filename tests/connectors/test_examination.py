"""What an examination finds, on the real OpenBao: every doubt by making it come true."""

from __future__ import annotations

from collections.abc import Sequence

from broker.clock import SystemClock
from broker.connectors.aws_examine import doubts_of_identity
from broker.connectors.vault_database import VaultDatabase
from broker.ports import Doubt, Severity
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness import aws_connector, vault_connector, vault_settings


async def examined(bao: ConfiguredOpenBao, token: str) -> Sequence[Doubt]:
    connector = VaultDatabase("orders-db", vault_settings(bao), lambda: Secret(token), SystemClock())
    try:
        return await connector.examine()
    finally:
        await connector.close()


async def test_what_is_set_up_by_the_recipe_has_no_doubt(openbao_server: ConfiguredOpenBao) -> None:
    assert not await examined(openbao_server, openbao_server.database.broker_token().reveal())


async def test_a_root_token_is_an_error(openbao_server: ConfiguredOpenBao) -> None:
    found = await examined(openbao_server, openbao_server.facts.root_token.reveal())
    assert any(each.severity is Severity.ERROR and "root token" in each.what for each in found)


async def test_a_refused_token_is_an_error_that_does_not_show_it(openbao_server: ConfiguredOpenBao) -> None:
    found = await examined(openbao_server, "s.canary-token-value")
    assert [each.severity for each in found] == [Severity.ERROR]
    assert "refused" in found[0].what
    assert "canary" not in repr(found)


async def test_what_cannot_be_reached_is_an_error(openbao_server: ConfiguredOpenBao, dead_address: str) -> None:
    for connector in (vault_connector(openbao_server, dead_address), aws_connector(dead_address)):
        [found] = await connector.examine()
        assert found.severity is Severity.ERROR
        await connector.close()


async def test_the_double_of_aws_has_no_doubt(aws_double: str) -> None:
    connector = aws_connector(aws_double)
    assert not await connector.examine()
    await connector.close()


def test_whose_keys_the_broker_has() -> None:
    def of(answer: object) -> list[Severity]:
        return [each.severity for each in doubts_of_identity({"Arn": answer})]

    assert of("arn:aws:sts::111122223333:assumed-role/jit-broker/i-0abc") == []
    assert of("arn:aws:iam::111122223333:root") == [Severity.ERROR]
    assert of("arn:aws-cn:iam::111122223333:user/brokers/jit") == [Severity.WARNING]
    assert of(None) == of("") == of("jit") == [Severity.ERROR]
