"""Which field of a request is told to hold a credential: the first, in the order of the proto, whatever it is in."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration

from broker.api.leaks import check_no_secrets
from broker.api.v1 import broker_service_pb2 as pb
from broker.errors import InvalidInput

KEY = "AKIA" + "A" * 16
TOKEN = "glpat-" + "a" * 20
HARMLESS = pb.RequestCredentialRequest(
    request_id="r", template="t", parameters={"day": "monday"}, ttl=Duration(seconds=1), intent="why", ticket="T-1"
)


@pytest.mark.parametrize(
    ("request_", "field", "kind"),
    [
        (pb.RequestCredentialRequest(parameters={"day": KEY}, intent=TOKEN), "parameters", "an AWS access key id"),
        (pb.RequestCredentialRequest(parameters={KEY: "monday"}, template=TOKEN), "template", "a GitLab token"),
        (pb.RequestCredentialRequest(intent=KEY, reason=TOKEN), "intent", "an AWS access key id"),
        (pb.StartTaskRequest(participants=["x", TOKEN], ticket=KEY), "participants", "a GitLab token"),
        (
            pb.CompleteTaskRequest(mutations=[pb.Mutation(resource="x"), pb.Mutation(description=TOKEN)]),
            "mutations.description",
            "a GitLab token",
        ),
    ],
)
def test_the_first_field_with_a_credential_is_told(request_: object, field: str, kind: str) -> None:
    with pytest.raises(InvalidInput, match=f"^{field} seems to hold {kind}") as refused:
        check_no_secrets(request_)  # type: ignore[arg-type]
    assert refused.value.metadata == {"field": field}


def test_a_request_without_one_goes_on() -> None:
    check_no_secrets(HARMLESS)


def test_no_shape_goes_over_from_one_field_into_the_next() -> None:
    check_no_secrets(pb.RequestCredentialRequest(request_id="AKIA", template="A" * 16))
