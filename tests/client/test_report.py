"""A report as it is written in a file: read whole, or refused with the place that is wrong."""

from __future__ import annotations

import pytest

from broker.api.v1 import broker_service_pb2 as pb
from broker.audit.report import Artifact, Mutation, TaskReport
from broker.client.report import parse_report, put
from broker.errors import InvalidInput


def test_a_report_is_read_and_sent() -> None:
    report = parse_report(
        '{"artifacts": [{"uri": "s3://b/k", "media_type": "text/csv"}],'
        ' "mutations": [{"resource": "table t", "action": "DELETED", "count": 2}]}'
    )
    assert report == TaskReport(
        (Artifact("s3://b/k", media_type="text/csv"),), (Mutation("table t", "DELETED", count=2),)
    )
    request = pb.CompleteTaskRequest()
    put(report, request)
    assert request.artifacts[0].uri == "s3://b/k"
    assert request.mutations[0].action == pb.Mutation.ACTION_DELETED
    assert not parse_report("{}")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "no JSON"),
        ("[]", "no object"),
        ('{"task_id": "t"}', "no object"),
        ('{"artifacts": {}}', "artifacts is no list"),
        ('{"artifacts": [3]}', "artifacts[0] is no object"),
        ('{"artifacts": [{"uri": "u"}, {"url": "u"}]}', "artifacts[1] is no object"),
        ('{"artifacts": [{"sha256": "u"}]}', "artifacts[0] lacks uri"),
        ('{"mutations": [{"resource": "r"}]}', "mutations[0] lacks resource or action"),
        ('{"mutations": [{"resource": 3, "action": "UPDATED"}]}', "mutations[0].resource is no text"),
        ('{"mutations": [{"resource": "r", "action": "UPDATED", "count": true}]}', "mutations[0].count is no number"),
    ],
)
def test_what_is_wrong_is_said(text: str, where: str) -> None:
    with pytest.raises(InvalidInput, match="the report cannot be read") as refused:
        parse_report(text)
    assert where in str(refused.value)


def test_an_action_that_is_none() -> None:
    with pytest.raises(InvalidInput, match="no action"):
        put(TaskReport(mutations=(Mutation("r", "deleted"),)), pb.CompleteTaskRequest())
