"""The STS connector with a revocation: what is noted before STS is asked, and what each outcome is ended by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import boto3
import botocore.exceptions
import pytest

from broker.clock import SystemClock
from broker.connectors.aws_client import AwsKeys
from broker.connectors.aws_contract import AwsStsSettings, Revocation, contract_of
from broker.connectors.aws_denials import Denials
from broker.connectors.aws_deny import PREFIX
from broker.connectors.aws_session_policy import Network
from broker.connectors.aws_sts import AwsSts
from broker.errors import InvalidInput, Reason, UpstreamFailed, WrongState
from broker.lease.credential import Binding, ContractClass
from broker.ports.connectors import Expired, NotYet, Refused, Revoked
from broker.secret import Secret
from tests.connectors.harness import aws_connector, aws_grant
from tests.connectors.iam_fake import ROLE_ID, FakeIam, World, client_error
from tests.connectors.mishap_proxy import Rule, lost, mishap_proxy
from tests.connectors.support import HOLDER, NOW, Ledger, SetClock, make_scope, new_attempt
from tests.connectors.test_aws_sts import granted

GRANT = aws_grant()
SCOPE = make_scope(GRANT, parameters={"prefix": "2031/05"})
BOUND = timedelta(minutes=5)
TTL = timedelta(minutes=14)
ATTEMPT = "jb-attempt"


class Denying(AwsSts):
    """The connector on IAM in memory, with STS cut off."""

    def __init__(self, world: World, epoch: str = "e1", answer: Any = None) -> None:
        self.clock = SetClock()
        super().__init__("aws", AwsStsSettings("eu-central-1", revocation=Revocation(epoch, BOUND)), None, self.clock)
        self.iam = FakeIam(world)
        self._iam = self.iam  # type: ignore[assignment]
        self._denials = Denials("aws", self.iam, self.clock, epoch, BOUND)  # type: ignore[arg-type]
        self.world, self.answer = world, answer
        self.sent: list[Mapping[str, Any]] = []

    def _assume(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        self.sent.append(request)
        self.world.history.append("AssumeRole")
        if isinstance(self.answer, Exception):
            raise self.answer
        user = granted(request)["AssumedRoleUser"]
        user = {**user, "AssumedRoleId": f"{self.world.role_id}:{request['RoleSessionName']}"}
        return granted(request, AssumedRoleUser=user)

    async def get(self, ledger: Ledger) -> Any:
        ledger.handle = self.prepare(SCOPE, ATTEMPT, HOLDER, NOW + TTL)
        return await self.issue(ledger.handle, SCOPE, NOW + TTL, ledger.checkpoint)

    async def end(self, ledger: Ledger, **context: Any) -> Any:
        told = {"created_at": NOW, "expires_at": NOW + TTL, **context}
        return await self.revoke(ledger.handle, ledger.context(self.clock.present, **told))


async def test_the_sessions_name_is_durable_before_sts_is_asked() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    assert connector.world.history == ["GetRole", "AssumeRole"]
    assert ledger.handles == [
        {
            "attempt": ATTEMPT,
            "role_arn": "arn:aws:iam::123456789012:role/orders-reader",
            "holder": HOLDER,
            "revocable": True,
            "role_id": ROLE_ID,
            "seconds": 900,
        }
    ]
    assert f"{ROLE_ID}:{ATTEMPT}" in ledger.names
    await connector.close()


async def test_an_attempt_that_was_ended_meanwhile_is_not_asked_for() -> None:
    refusal = WrongState(Reason.LEASE_ENDED, "ended.")
    connector, ledger = Denying(World()), Ledger(refuse_from=1, error=refusal)
    with pytest.raises(WrongState):
        await connector.get(ledger)
    assert connector.sent == []
    # Nothing was asked, and from the end of the issue's time on nothing will be.
    outcome = await connector.end(ledger, outcome_known=False)
    assert isinstance(outcome, NotYet)
    assert (outcome.retry_after, outcome.failed) == (timedelta(seconds=20), False)
    connector.clock.present += timedelta(seconds=20)
    assert await connector.end(ledger, outcome_known=False) == Revoked({"asked": False})
    assert connector.world.policies == {}


async def test_revoked_minutes_after_the_deny_and_not_at_once() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    outcome = await connector.end(ledger)
    assert isinstance(outcome, NotYet)
    assert (outcome.retry_after, outcome.failed) == (BOUND, False)
    assert connector.world.denied(f"{ROLE_ID}:{ATTEMPT}")
    connector.clock.present += BOUND
    assert isinstance(await connector.end(ledger), Revoked)
    # The Deny stays until STS's own end, 900 s after the call may have arrived, and the clocks' difference.
    (document,) = connector.world.policies.values()
    assert json.loads(document)["Statement"][0]["Sid"] == "Until20310501T123000Z"


async def test_at_its_deadline_the_session_ends_itself_whatever_iam_says() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.iam.down = client_error("Throttling", 400)
    connector.clock.present = NOW + TTL
    asked = len(connector.world.history)
    assert await connector.end(ledger) == Expired()
    assert len(connector.world.history) == asked


async def test_killed_between_assume_role_and_its_answer_another_process_denies_what_nobody_saw() -> None:
    world, ledger = World(), Ledger()
    dead = Denying(world, "dead", botocore.exceptions.ReadTimeoutError(endpoint_url="https://sts"))
    with pytest.raises(UpstreamFailed) as caught:
        await dead.get(ledger)
    assert not caught.value.outcome_known
    following = Denying(world, "next")
    following.clock.present += timedelta(seconds=30)
    assert isinstance(await following.end(ledger, outcome_known=False), NotYet)
    assert world.denied(f"{ROLE_ID}:{ATTEMPT}")
    following.clock.present += BOUND
    assert isinstance(await following.end(ledger, outcome_known=False), Revoked)


async def test_a_role_that_was_made_anew_is_denied_under_the_id_that_sts_used() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.world.role_id = "AROANEWNEWNEWNEWNEW00"  # within the ten minutes that the first is believed for
    await connector.get(ledger)
    assert [handle["role_id"] for handle in ledger.handles] == [ROLE_ID, ROLE_ID, "AROANEWNEWNEWNEWNEW00"]
    await connector.end(ledger)
    assert connector.world.denied(f"AROANEWNEWNEWNEWNEW00:{ATTEMPT}")


async def test_without_an_answer_it_is_denied_under_both_ids() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.world.role_id = "AROANEWNEWNEWNEWNEW00"
    for _ in range(2):
        await connector.end(ledger, outcome_known=False)
        connector.clock.present += BOUND
    assert connector.world.denied(f"AROANEWNEWNEWNEWNEW00:{ATTEMPT}")
    assert connector.world.denied(f"{ROLE_ID}:{ATTEMPT}")
    assert isinstance(await connector.end(ledger, outcome_known=False), Revoked | Expired)


async def test_a_session_from_before_there_was_a_revocation_is_denied_too() -> None:
    connector, ledger = Denying(World()), Ledger()
    ledger.handle = {"attempt": ATTEMPT, "role_arn": "arn:aws:iam::123456789012:role/orders-reader", "holder": HOLDER}
    assert isinstance(await connector.end(ledger, outcome_known=False), NotYet)
    assert connector.world.denied(f"{ROLE_ID}:{ATTEMPT}")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (client_error("NoSuchEntity", 404), Reason.UPSTREAM_REFUSED),
        (client_error("AccessDenied", 403), Reason.UPSTREAM_REFUSED),
        (client_error("Throttling", 400), Reason.UPSTREAM_UNAVAILABLE),
        (botocore.exceptions.ReadTimeoutError(endpoint_url="https://iam"), Reason.UPSTREAM_UNAVAILABLE),
    ],
)
async def test_what_could_not_be_revoked_is_not_issued(error: Exception, reason: Reason) -> None:
    connector, ledger = Denying(World()), Ledger()
    connector.iam.down = error
    with pytest.raises(UpstreamFailed) as caught:
        await connector.get(ledger)
    assert caught.value.reason is reason
    assert caught.value.outcome_known  # STS was not asked
    assert connector.sent == []
    assert ledger.handles == []


async def test_while_all_of_a_roles_sessions_are_being_ended_no_new_one_is_made() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.iam.fates = [client_error("LimitExceeded", 409)]

    async def together(prefix: str) -> int:
        assert prefix == f"{ROLE_ID}:"
        return 2

    context = ledger.context(NOW, created_at=NOW, expires_at=NOW + TTL)
    context = context._replace(end_together=together)
    await connector.revoke(ledger.handle, context)
    with pytest.raises(UpstreamFailed, match="is being ended") as caught:
        await connector.get(Ledger())
    assert caught.value.outcome_known
    assert len(connector.sent) == 1
    connector.clock.present += timedelta(seconds=62)
    await connector.get(Ledger())
    assert len(connector.sent) == 2


async def test_where_a_right_is_missing_nothing_more_is_issued_until_it_is_there() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.iam.fates = [client_error("AccessDenied", 403)]
    outcome = await connector.end(ledger)
    assert isinstance(outcome, NotYet)
    assert outcome.failed
    with pytest.raises(UpstreamFailed, match="could not be ended") as caught:
        await connector.get(Ledger())
    assert caught.value.outcome_known
    assert len(connector.sent) == 1
    connector.clock.present += timedelta(minutes=2)
    await connector.get(Ledger())
    assert len(connector.sent) == 2


async def test_keys_that_are_refused_are_an_alarm_and_tending_says_what_failed() -> None:
    connector, ledger = Denying(World()), Ledger()
    await connector.get(ledger)
    connector.iam.fates = [client_error("InvalidClientTokenId", 403)]
    assert isinstance(await connector.end(ledger), Refused)
    await connector.end(ledger)
    await connector.tend()
    connector.iam.down = client_error("ServiceFailure", 500)
    with pytest.raises(UpstreamFailed, match="look after the policies"):
        await connector.tend()
    await connector.close()


def test_what_is_promised_depends_on_the_settings() -> None:
    revocation = Revocation("e1", BOUND)
    by_policy = contract_of(AwsStsSettings("eu-central-1", revocation=revocation))
    assert (by_policy.cls, by_policy.on_revoke) == (ContractClass.BY_POLICY, BOUND)
    bound = contract_of(AwsStsSettings("eu-central-1", network=Network(("203.0.113.0/24",))))
    assert (bound.cls, bound.binding) == (ContractClass.EXPIRY_ONLY, Binding.NETWORK)
    proving = contract_of(AwsStsSettings("eu-central-1", revocation=revocation, proves_identity=True))
    assert (proving.cls, proving.on_revoke, proving.ttl_floor) == (
        ContractClass.EXPIRY_ONLY,
        None,
        timedelta(seconds=900),
    )


# ------------------------------------------------------------------ network, and managed policies


def deny_of(policy: str, sid: str) -> Any:
    return next((each for each in json.loads(policy)["Statement"] if each.get("Sid") == sid), None)


async def test_the_networks_of_connector_and_grant_are_denies_of_their_own() -> None:
    grant = {**GRANT, "network": {"source_ips": ["198.51.100.7/32"], "source_vpces": []}}
    connector = Denying(World())
    connector._settings = AwsStsSettings(
        "eu-central-1", network=Network(("203.0.113.0/24",), ("vpce-0123456789abcdef0",))
    )
    connector._denials = None
    scope = make_scope(grant, parameters={"prefix": "p"})
    handle = connector.prepare(scope, ATTEMPT, HOLDER, NOW + TTL)
    await connector.issue(handle, scope, NOW + TTL, Ledger().checkpoint)
    (request,) = connector.sent
    assert deny_of(request["Policy"], "BrokerNetwork")["Condition"] == {
        "BoolIfExists": {"aws:ViaAWSService": "false"},
        "NotIpAddress": {"aws:SourceIp": ["203.0.113.0/24"]},
        "StringNotEquals": {"aws:SourceVpce": ["vpce-0123456789abcdef0"]},
    }
    assert deny_of(request["Policy"], "GrantNetwork")["Condition"] == {
        "BoolIfExists": {"aws:ViaAWSService": "false"},
        "NotIpAddress": {"aws:SourceIp": ["198.51.100.7/32"]},
    }


async def test_managed_policies_are_named_in_the_requests_account() -> None:
    grant = {**GRANT, "policy": [], "managed_policies": ["arn:aws:iam::aws:policy/ReadOnlyAccess", "team/orders"]}
    connector, scope = Denying(World()), make_scope(grant)
    handle = connector.prepare(scope, ATTEMPT, HOLDER, NOW + TTL)
    await connector.issue(handle, scope, NOW + TTL, Ledger().checkpoint)
    (request,) = connector.sent
    assert request["PolicyArns"] == [
        {"arn": "arn:aws:iam::aws:policy/ReadOnlyAccess"},
        {"arn": "arn:aws:iam::123456789012:policy/team/orders"},
    ]
    # Without a Deny of ours, a managed policy would hold beyond the deadline.
    assert [each["Sid"] for each in json.loads(request["Policy"])["Statement"]] == [
        "BrokerDeadline",
        "BrokerNoOtherSessions",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"policy": [], "managed_policies": []},
        {"managed_policies": ["p"] * 11},
        {"managed_policies": [3]},
        {"managed_policies": "ReadOnlyAccess"},
        {"network": {}},
        {"network": {"source_ips": "203.0.113.0/24"}},
        {"network": {"source_ip": ["203.0.113.0/24"]}},
        {"network": {"source_ips": [""]}},
    ],
)
def test_a_grant_that_is_not_understood_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as refused:
        Denying(World()).prepare(make_scope({**GRANT, **changes}, parameters={"prefix": "p"}), ATTEMPT, HOLDER, NOW)
    assert refused.value.reason is Reason.CONFIG_INVALID


# ------------------------------------------------------------------ against the double


CLOCK = SystemClock()


@pytest.fixture
def role(aws_double: str) -> Any:
    """A role of its own in the double, and a client to look at it."""
    iam = boto3.client(
        "iam", region_name="eu-central-1", endpoint_url=aws_double, aws_access_key_id="a", aws_secret_access_key="b"
    )
    name = f"reader-{new_attempt()[3:15]}"
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    yield iam, name
    iam.close()


@pytest.fixture
async def real(aws_double: str) -> AsyncIterator[AwsSts]:
    made = aws_connector(aws_double, revocation=Revocation("e1", BOUND, None, aws_double))
    yield made
    await made.close()


async def test_the_calls_are_those_of_iam(real: AwsSts, role: Any) -> None:
    iam, name = role
    scope, ledger = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"}), Ledger()
    expires_at = CLOCK.now() + TTL
    handle = real.prepare(scope, new_attempt(), HOLDER, expires_at)
    issued = await real.issue(handle, scope, expires_at, ledger.checkpoint)
    assert ledger.handle["role_id"] == iam.get_role(RoleName=name)["Role"]["RoleId"]
    outcome = await real.revoke(ledger.handle, ledger.context(expires_at=expires_at))
    assert isinstance(outcome, NotYet)
    assert not outcome.failed, outcome.why
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == [f"{PREFIX}e1-0"]
    document = iam.get_role_policy(RoleName=name, PolicyName=f"{PREFIX}e1-0")["PolicyDocument"]
    assert document["Statement"][0]["Condition"] == {
        "StringEquals": {"aws:userid": [issued.observed["assumed_role_id"]]}
    }
    await real.tend()
    iam.delete_role_policy(RoleName=name, PolicyName=f"{PREFIX}e1-0")
    await real.tend()
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == [f"{PREFIX}e1-0"]


async def test_a_lost_answer_of_iam_is_tried_again_under_another_name(aws_double: str, role: Any) -> None:
    iam, name = role
    scope, ledger = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"}), Ledger()
    with mishap_proxy(aws_double) as (proxy, address):
        made = aws_connector(aws_double, revocation=Revocation("e2", BOUND, None, address), timeout=5.0)
        expires_at = CLOCK.now() + TTL
        handle = made.prepare(scope, new_attempt(), HOLDER, expires_at)
        await made.issue(handle, scope, expires_at, ledger.checkpoint)
        proxy.rules = [Rule("POST /", change=lost)]
        outcome = await made.revoke(ledger.handle, ledger.context(expires_at=expires_at))
        assert isinstance(outcome, NotYet)
        assert outcome.failed
        proxy.rules = []
        outcome = await made.revoke(ledger.handle, ledger.context(expires_at=expires_at))
        assert isinstance(outcome, NotYet)
        assert not outcome.failed
        await made.close()
    assert len(iam.list_role_policies(RoleName=name)["PolicyNames"]) == 1


async def test_the_role_that_writes_is_assumed_in_the_targets_account(aws_double: str, role: Any) -> None:
    iam, name = role
    scope, ledger = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"}), Ledger()
    made = aws_connector(aws_double, revocation=Revocation("e3", BOUND, "ops/jit-broker-revoker", aws_double))
    expires_at = CLOCK.now() + TTL
    handle = made.prepare(scope, new_attempt(), HOLDER, expires_at)
    await made.issue(handle, scope, expires_at, ledger.checkpoint)
    await made.revoke(ledger.handle, ledger.context(expires_at=expires_at))
    assert iam.list_role_policies(RoleName=name)["PolicyNames"] == [f"{PREFIX}e3-0"]
    await made.close()


@pytest.fixture
def elsewhere(aws_double: str, role: Any) -> Any:
    """Keys of another account, where there is a role of the same name; and a client to look at it."""
    _, name = role
    own = {"region_name": "eu-central-1", "endpoint_url": aws_double}
    sts = boto3.client("sts", **own, aws_access_key_id="a", aws_secret_access_key="b")
    keys = sts.assume_role(RoleArn="arn:aws:iam::210987654321:role/operator", RoleSessionName="operator")["Credentials"]
    iam = boto3.client(
        "iam",
        **own,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": []}))
    yield AwsKeys(lambda: Secret(keys["AccessKeyId"]), lambda: Secret(keys["SecretAccessKey"])), iam
    iam.close()
    sts.close()


def with_keys(aws_double: str, keys: AwsKeys) -> AwsSts:
    """Without waiting for AWS to spread anything."""
    settings = AwsStsSettings(
        "eu-central-1", endpoint_url=aws_double, revocation=Revocation("e9", timedelta(0), None, aws_double)
    )
    return AwsSts("aws", settings, keys, CLOCK)


@pytest.mark.parametrize("noted", [True, False])
async def test_a_role_of_the_same_name_in_another_account_ends_nothing(
    aws_double: str, real: AwsSts, role: Any, elsewhere: Any, noted: bool
) -> None:
    """The connector got keys of another account: IAM's calls name no account, so they are about that one."""
    (_, name), (keys, other) = role, elsewhere
    scope, ledger = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"}), Ledger()
    expires_at = CLOCK.now() + TTL
    handle = real.prepare(scope, new_attempt(), HOLDER, expires_at)
    await real.issue(handle, scope, expires_at, ledger.checkpoint)
    moved = with_keys(aws_double, keys)
    for _ in range(2):
        outcome = await moved.revoke(ledger.handle, ledger.context(expires_at=expires_at, outcome_known=noted))
        assert isinstance(outcome, NotYet), outcome
        assert outcome.failed
        assert outcome.alone
        assert "210987654321" in outcome.why
    assert other.list_role_policies(RoleName=name)["PolicyNames"] == []
    # Nor is anything issued that could not be ended.
    again = moved.prepare(scope, new_attempt(), HOLDER, expires_at)
    with pytest.raises(UpstreamFailed) as refused:
        await moved.issue(again, scope, expires_at, ledger.checkpoint)
    assert refused.value.outcome_known
    assert "210987654321" in refused.value.message
    await moved.close()


async def test_keys_that_became_another_accounts_prove_nothing_of_what_was_denied(
    aws_double: str, role: Any, elsewhere: Any
) -> None:
    """Between the Deny and its proof, with a policy there that reads the same."""
    (iam, name), (keys, other) = role, elsewhere
    held = [AwsKeys(lambda: Secret("AKIAEXAMPLE"), lambda: Secret("secret"))]
    turning = AwsKeys(lambda: held[-1].access_key_id(), lambda: held[-1].secret_access_key())
    scope, ledger = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"}), Ledger()
    expires_at = CLOCK.now() + TTL
    made = with_keys(aws_double, turning)
    handle = made.prepare(scope, new_attempt(), HOLDER, expires_at)
    await made.issue(handle, scope, expires_at, ledger.checkpoint)
    context = ledger.context(expires_at=expires_at)
    assert isinstance(await made.revoke(ledger.handle, context), NotYet)
    (policy,) = iam.list_role_policies(RoleName=name)["PolicyNames"]
    document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
    other.put_role_policy(RoleName=name, PolicyName=policy, PolicyDocument=json.dumps(document))
    held.append(keys)
    outcome = await made.revoke(ledger.handle, context)
    assert isinstance(outcome, NotYet), outcome
    assert outcome.alone
    held.pop()
    assert isinstance(await made.revoke(ledger.handle, context), Revoked)
    await made.close()


def _denied(iam: Any, name: str) -> dict[str, set[str]]:
    """By policy of the role, the sessions that it denies."""
    found = {}
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"]
        conditions = (each["Condition"]["StringEquals"]["aws:userid"] for each in document["Statement"])
        found[policy] = {session for sessions in conditions for session in sessions}
    return found


async def test_two_replicas_on_one_role_lose_none_of_each_others_denies(aws_double: str, role: Any) -> None:
    """Each revokes half of what both have issued, all at once; then each tends, and each takes over from the other."""
    iam, name = role
    scope = make_scope({**GRANT, "role_name": name}, parameters={"prefix": "p"})
    epochs = ("replicaa", "replicab")
    replicas = [aws_connector(aws_double, revocation=Revocation(each, BOUND, None, aws_double)) for each in epochs]
    expires_at = CLOCK.now() + TTL
    ledgers, sessions = [Ledger() for _ in range(12)], []
    for number, ledger in enumerate(ledgers):
        handle = replicas[number % 2].prepare(scope, new_attempt(), HOLDER, expires_at)
        issued = await replicas[number % 2].issue(handle, scope, expires_at, ledger.checkpoint)
        sessions.append(str(issued.observed["assumed_role_id"]))

    async def end(number: int, by: AwsSts) -> None:
        ledger = ledgers[number]
        outcome = await by.revoke(ledger.handle, ledger.context(expires_at=expires_at))
        assert isinstance(outcome, NotYet)
        assert not outcome.failed, outcome.why

    # A third of the sessions is ended by whoever has not issued it.
    ending = [replicas[(number + (number % 3 == 0)) % 2] for number in range(len(ledgers))]
    await asyncio.gather(*(end(number, by) for number, by in enumerate(ending)))
    written = _denied(iam, name)
    assert set().union(*written.values()) == set(sessions)
    assert sorted(written) == [f"{PREFIX}{each}-0" for each in epochs]
    for each in replicas:
        await each.tend()
    await asyncio.gather(*(end(number, replicas[by is replicas[0]]) for number, by in enumerate(ending)))
    assert _denied(iam, name) == written  # what the other has written is believed, and left alone
    # One that was stopped for long goes on beside one that took its place.
    late = aws_connector(aws_double, revocation=Revocation("replicac", BOUND, None, aws_double))
    more = Ledger()
    handle = late.prepare(scope, new_attempt(), HOLDER, expires_at)
    issued = await late.issue(handle, scope, expires_at, more.checkpoint)
    ledgers.append(more)
    await asyncio.gather(end(len(ledgers) - 1, replicas[0]), late.tend(), replicas[1].tend())
    assert set().union(*_denied(iam, name).values()) == {*sessions, str(issued.observed["assumed_role_id"])}
    for each in (*replicas, late):
        await each.close()
