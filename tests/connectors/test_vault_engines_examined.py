"""What the doctor finds of the engines that sign and of the store: by the recipe nothing, else each wrong right."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from broker.api.leaks import check_no_secrets
from broker.api.v1.broker_service_pb2 import RequestCredentialRequest
from broker.clock import SystemClock
from broker.connectors.vault_kv import VaultKv, VaultKvSettings
from broker.connectors.vault_pki import VaultPki, VaultPkiSettings
from broker.connectors.vault_ssh import VaultSsh, VaultSshSettings
from broker.errors import InvalidInput, Reason
from broker.ports.connectors import Connector, Severity
from broker.secret import Secret
from tests.conftest import ConfiguredOpenBao
from tests.connectors.harness_vault_kv import configure_kv
from tests.connectors.harness_vault_pki import configure_pki, request_of
from tests.connectors.harness_vault_ssh import configure_ssh, public_key
from tests.connectors.vault_mount import POLICY, broker_token

Made = Callable[[str, Callable[[], Secret]], Connector]
KINDS: dict[str, Made] = {
    "pki": lambda address, token: VaultPki("pki", VaultPkiSettings(address), token, SystemClock()),
    "ssh": lambda address, token: VaultSsh("ssh", VaultSshSettings(address), token, SystemClock()),
    "kv": lambda address, token: VaultKv("kv", VaultKvSettings(address), token, SystemClock()),
}
TOO_MUCH = {
    "pki": [
        ('path "pki/sign/*" { capabilities = ["update"] }', "belong to no attempt"),
        ('path "pki/issue/*" { capabilities = ["update"] }', "private keys"),
        ('path "pki/roles/*" { capabilities = ["update"] }', "change roles"),
        ('path "pki/root/generate/*" { capabilities = ["update"] }', "make CAs"),
        ('path "pki/config/crl" { capabilities = ["update"] }', "switch the revocation list off"),
        ('path "sys/policies/acl/*" { capabilities = ["update"] }', "give itself everything"),
    ],
    "ssh": [
        ('path "ssh/issue/*" { capabilities = ["update"] }', "private keys"),
        ('path "ssh/config/ca" { capabilities = ["update"] }', "replace the CA"),
    ],
    "kv": [('path "kv/data/*" { capabilities = ["update"] }', "change secrets")],
}


@pytest.fixture(scope="module")
def bao(openbao_server: ConfiguredOpenBao) -> Iterator[ConfiguredOpenBao]:
    """All three engines as by the recipes."""
    configure_pki(openbao_server)
    configure_ssh(openbao_server)
    configure_kv(openbao_server)
    yield openbao_server


async def examined(bao: ConfiguredOpenBao, kind: str, token: Secret) -> list[tuple[Severity, str]]:
    connector = KINDS[kind](bao.facts.address, lambda: token)
    found = [(each.severity, each.what) for each in await connector.examine()]
    await connector.close()
    assert await connector.examine()  # one that is being replaced says so
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_the_recipe_has_no_doubt(bao: ConfiguredOpenBao, kind: str) -> None:
    assert await examined(bao, kind, broker_token(bao.root_client())) == []


@pytest.mark.parametrize(
    ("kind", "policy", "what"), [(kind, *each) for kind, all_ in TOO_MUCH.items() for each in all_]
)
async def test_a_right_too_many_is_an_error(bao: ConfiguredOpenBao, kind: str, policy: str, what: str) -> None:
    root = bao.root_client()
    root.write_data("sys/policies/acl/too-much", data={"policy": policy})
    made = root.auth.token.create_orphan(policies=[POLICY, "too-much"], period="1h", no_default_policy=True)
    ((severity, told),) = await examined(bao, kind, Secret(made["auth"]["client_token"]))
    assert severity is Severity.ERROR
    assert what in told


@pytest.mark.parametrize(("kind", "what"), [("pki", "nothing can be issued"), ("ssh", "nothing can be signed")])
async def test_a_right_too_few_is_an_error(bao: ConfiguredOpenBao, kind: str, what: str) -> None:
    root = bao.root_client()
    policy = (
        'path "auth/token/lookup-self" { capabilities = ["read"] }\n'
        'path "sys/capabilities-self" { capabilities = ["update"] }'
    )
    root.write_data("sys/policies/acl/too-little", data={"policy": policy})
    made = root.auth.token.create_orphan(policies=["too-little"], period="1h", no_default_policy=True)
    found = await examined(bao, kind, Secret(made["auth"]["client_token"]))
    assert {severity for severity, _ in found} == {Severity.ERROR}
    assert any(what in told for _, told in found)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_token_that_is_refused_and_a_root_token_are_told(bao: ConfiguredOpenBao, kind: str) -> None:
    ((severity, told),) = await examined(bao, kind, Secret("s.nobodys"))
    assert severity is Severity.ERROR
    assert "refused" in told
    assert (Severity.ERROR, "The broker's own token is a root token: it may do everything.") in await examined(
        bao, kind, bao.facts.root_token
    )


def test_a_public_key_is_taken_for_no_secret_and_a_private_one_is() -> None:
    for _ in range(25):
        for text in (request_of(), public_key()):
            check_no_secrets(RequestCredentialRequest(subject_public_key=text))
    private = "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEE\n-----END EC PRIVATE KEY-----\n"
    with pytest.raises(InvalidInput) as refused:
        check_no_secrets(RequestCredentialRequest(subject_public_key=private))
    assert refused.value.reason is Reason.CREDENTIAL_IN_REQUEST
