"""What operators write of a MinIO: what is taken, and where each mistake is told."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from broker.deployfiles.kinds_minio import MinioStsGrant, MinioStsSettings
from broker.scope.canonical import JsonValue

SETTINGS: dict[str, Any] = {
    "endpoint_url": "https://minio.example.org:9000",
    "user": "jit-broker",
    "secret_key": "file:/run/secrets/minio",
    "buckets": ["orders-reports"],
}
READ: dict[str, JsonValue] = {"actions": ["s3:GetObject"], "resources": ["arn:aws:s3:::orders-reports/*"]}


def test_what_is_taken_as_it_stands() -> None:
    settings = MinioStsSettings.model_validate(SETTINGS)
    assert (settings.nodes, settings.region, settings.canary_bucket) == ([], "us-east-1", None)
    grant = MinioStsGrant.model_validate({"policy": [READ]})
    assert grant.policy[0].actions == ["s3:GetObject"]


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"endpoint_url": "http://minio.example.org:9000"}, "endpoint_url"),  # plain http is for loopback
        ({"endpoint_url": "minio.example.org"}, "endpoint_url"),
        ({"nodes": ["http://10.0.0.7:9000"]}, "nodes"),
        ({"user": ""}, "user"),
        ({"secret_key": "the-secret-itself"}, "secret_key"),
        ({"secret_key": "file:relative"}, "secret_key"),
        ({"buckets": []}, "buckets"),
        ({"buckets": ["orders-*"]}, "buckets"),
        ({"buckets": None}, "buckets"),
        ({"canary_bucket": "Orders"}, "canary_bucket"),
        ({"region": "US"}, "region"),
        ({"role_name": "orders"}, "role_name"),
    ],
)
def test_wrong_settings_are_told_by_their_field(changes: dict[str, object], where: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MinioStsSettings.model_validate({**SETTINGS, **changes})
    assert {each["loc"][0] for each in caught.value.errors()} == {where}


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ({**READ, "actions": ["admin:CreateUser"]}, "s3: actions only, not admin:CreateUser"),
        ({**READ, "actions": ["s3:GetObject", "sts:AssumeRole"]}, "s3: actions only, not sts:AssumeRole"),
        ({**READ, "actions": ["*"]}, "should match pattern"),
        ({**READ, "resources": ["*"]}, "arn:aws:s3:::"),
        ({**READ, "resources": ["arn:aws:sqs:eu-central-1:1:queue"]}, "arn:aws:s3:::"),
        ({**READ, "resources": [[{"parameter": "bucket"}, "/*"]]}, "must start with the text of an ARN"),
        ({**READ, "resources": []}, "at least 1 item"),
    ],
)
def test_a_session_may_do_nothing_but_s3(statement: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words.replace("*", r"\*")):
        MinioStsGrant.model_validate({"policy": [READ, statement]})
