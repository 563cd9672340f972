"""The STS connector with a revocation, as the contract suite drives it: moto keeps its policies and enforces none."""

from __future__ import annotations

import json
from datetime import timedelta

import boto3

from broker.clock import SystemClock
from broker.connectors.aws_contract import Revocation
from broker.connectors.aws_sts import AwsSts
from tests.connectors.harness import LIE, NO_LIST, ROLE_NAME, Harness, aws_connector, aws_grant
from tests.connectors.support import make_scope, new_attempt

BOUND = timedelta(minutes=3)
_NO_PROOF = "an end is proven only once its Deny has stood for minutes (test_aws_revocation.py)"


def aws_by_policy_harness(double: str, dead_address: str) -> Harness:
    """Each connector it makes is a writer of its own, as after a restart."""
    iam = boto3.client(
        "iam", region_name="eu-central-1", endpoint_url=double, aws_access_key_id="a", aws_secret_access_key="b"
    )
    try:
        trust = json.dumps({"Version": "2012-10-17", "Statement": []})
        iam.create_role(RoleName=ROLE_NAME, AssumeRolePolicyDocument=trust)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    finally:
        iam.close()

    def make(address: str = double) -> AwsSts:
        epoch = new_attempt().replace("-", "")
        return aws_connector(address, revocation=Revocation(epoch, BOUND, None, address))

    return Harness(
        clock=SystemClock(),
        make=make,
        make_unreachable=lambda: make(dead_address),
        scope=make_scope(aws_grant(), parameters={"prefix": "2031/05"}),
        works=None,
        secrets=("secret-of-the-broker",),
        cannot={
            **NO_LIST,
            "test_a_refused_checkpoint_stops_it_and_leaves_nothing": _NO_PROOF,
            "test_a_revocation_that_is_not_answered_is_no_proof": _NO_PROOF,
            LIE: _NO_PROOF,
            "test_an_issue_that_is_not_answered_is_a_failure_and_leaves_nothing": "IAM is asked first, whose failures"
            " prove that STS was not (test_aws_revocation.py); without a revocation the case runs on this kind",
        },
    )
