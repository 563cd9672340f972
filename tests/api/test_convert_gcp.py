"""A Google Cloud token over the wire and back, and which of its fields are secret."""

from __future__ import annotations

from datetime import UTC, datetime

from broker.api import convert
from broker.api.v1 import credential_pb2, options_pb2
from broker.client.read import credential
from broker.lease.credential import GcpToken
from broker.lease.fingerprint import secrets_in
from broker.secret import Secret

TOKEN = GcpToken(
    access_token=Secret("ya29.secret"),
    expires_at=datetime(2031, 5, 1, 12, 0, 7, tzinfo=UTC),
    project="acme-data",
    service_account="orders-reader@acme-data.iam.gserviceaccount.com",
    scopes=("https://www.googleapis.com/auth/devstorage.read_only", "https://www.googleapis.com/auth/bigquery"),
    access_boundary='{"accessBoundary":{"accessBoundaryRules":[]}}',
)


def test_every_field_comes_back() -> None:
    sent = convert.credential(TOKEN).SerializeToString()
    assert credential(credential_pb2.Credential.FromString(sent)) == TOKEN


def test_the_token_is_what_is_secret() -> None:
    assert [name for name, _ in secrets_in(TOKEN)] == ["access_token"]
    assert "ya29" not in repr(TOKEN)
    fields = credential_pb2.GcpToken.DESCRIPTOR.fields
    assert [each.name for each in fields if each.GetOptions().Extensions[options_pb2.sensitive]] == ["access_token"]
