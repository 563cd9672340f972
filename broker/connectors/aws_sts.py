"""Sessions of an AWS role, by STS AssumeRole (kind ``aws-sts``).

A session carries the attempt's id twice, as RoleSessionName and as SourceIdentity, so that CloudTrail
and every later Deny can name it; tags say for whom and what. Nothing is undone upstream: STS cannot
take a session back. What ends it is the Deny in its own session policy (``aws_session_policy.py``),
enforced by AWS at every request, with the broker dead too. So an attempt whose outcome is unknown
ends at the same time as one that is known: the deadline was in the request.

What the operator must have set up: the role's trust policy allows the broker sts:AssumeRole,
sts:TagSession and sts:SetSourceIdentity (and demands the ExternalId, if one is configured).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.connectors.aws_client import AwsKeys, sts_client
from broker.connectors.aws_examine import doubts_of_identity, unreachable
from broker.connectors.aws_failures import FAILURES, told
from broker.connectors.aws_session_policy import session_policy
from broker.connectors.aws_use import list_bucket
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import AwsSession, Binding, Contract, ContractClass, Credential
from broker.ports import Checkpoint, Clock, Doubt, Expired, Handle, Issued, NotYet, RevokeContext, RevokeOutcome, Use
from broker.scope.canonical import JsonValue
from broker.scope.model import Scope
from broker.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# STS API reference, AssumeRole: DurationSeconds from 900, and at most 3600 where the caller itself
# runs on a role's credentials (role chaining), which a broker usually does.
_SHORTEST, _LONGEST = 900, 3600
_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}\Z", re.ASCII)
_ROLE_NAME = re.compile(r"([\w+=,.@-]+/)*[\w+=,.@-]{1,64}\Z", re.ASCII)
_ACCOUNT = re.compile(r"[0-9]{12}\Z", re.ASCII)
_TAG_VALUE = re.compile(r"[\w .:/=+@-]*\Z")
_NOT_IN_TAG = re.compile(r"[^\w .:/=+@-]")
_LONGEST_TAG = 256

CONTRACT = Contract(
    cls=ContractClass.EXPIRY_ONLY,
    binding=Binding.NONE,
    # The deadline is a whole second, rounded down: a TTL below 2 s may come to nothing.
    ttl_floor=timedelta(seconds=2),
    ttl_ceiling=timedelta(seconds=_LONGEST),
    on_expiry=timedelta(seconds=1),
    on_revoke=None,
    broker_dead="AWS denies every request of the session from its deadline on: the Deny is in the session itself.",
    upstream_dead="As with the broker dead; where AWS does not answer, the session cannot be used either.",
    on_broker_dead=timedelta(seconds=1),
    on_upstream_dead=timedelta(seconds=1),
)


@dataclass(frozen=True, slots=True)
class AwsStsSettings:
    """What the operator says about one such upstream. Times in seconds."""

    region: str
    partition: str = "aws"
    endpoint_url: str | None = None  # for a double or a private endpoint; None: the region's own
    external_id: str | None = None
    canary_bucket: str | None = None  # what a canary lists; None: nothing can be tried
    canary_endpoint_url: str | None = None  # of S3, for a double or a private endpoint
    timeout: float = 5.0
    threads: int = 8


class AwsSts:
    """The connector. Without ``keys`` the SDK's default credential chain finds the broker's credentials."""

    def __init__(self, name: str, settings: AwsStsSettings, keys: AwsKeys | None, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._keys = keys
        self._clock = clock
        self._threads = Threads(name, settings.threads)
        self._closing = Closing()
        self._making = threading.Lock()
        self._made: STSClient | None = None

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """EXPIRY_ONLY: the deadline in the session policy ends it, nothing sooner."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime) -> Handle:
        """The names, and a rehearsal of everything STS would refuse for size or form.

        Raises InvalidInput: SCOPE_TOO_LARGE with the figure, PARAMETER_INVALID, or CONFIG_INVALID.
        """
        _within("the role session name", attempt_id, _SESSION_NAME, 64)
        for key, value in _tags(scope, holder).items():
            _within(f"session tag {key}", value, _TAG_VALUE, _LONGEST_TAG)
        session_policy(scope, expires_at)
        return {"attempt": attempt_id, "role_arn": _role_arn(scope, self._settings.partition), "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A session until ``expires_at``, rounded down to a whole second. Raises UpstreamFailed, InvalidInput.

        ``checkpoint`` is not needed: one call, named by us beforehand, that nothing could take back.
        """
        deadline = expires_at.replace(microsecond=0)
        begun = self._clock.now()
        if self._closing.closed:
            raise self._not_begun(f"{self._name} is being replaced by a newer definition.", "Ask again.")
        if deadline <= begun:
            why = f"the credential's time was over before {self._name} could be asked."
            raise self._not_begun(why, "Ask for a longer TTL.")
        policy = session_policy(scope, deadline)
        seconds = min(max(_SHORTEST, -((begun - deadline) // timedelta(seconds=1))), _LONGEST)
        request = self._request(handle, scope, policy, seconds)
        try:
            with self._closing.call():
                answer = await self._threads.run(partial(self._assume, request))
        except FAILURES as error:
            failure = told(error, self._name)
        else:
            return self._checked(answer, request, deadline, begun + timedelta(seconds=seconds))
        raise failure

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Expired from the deadline on, issued or not; before it, only waiting helps."""
        left = context.expires_at - context.now
        if left <= timedelta(0):
            return Expired()
        return NotYet(
            "only time ends an STS session; its policy denies everything from the deadline on.", left, failed=False
        )

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """List the bucket that operators named for it. Raises UpstreamFailed, too, where they named none.

        Not GetCallerIdentity: that answers whatever is denied (AWS STS API reference).
        """
        settings = self._settings
        list_one = partial(
            list_bucket,
            self._name,
            credential,
            settings.canary_bucket,
            endpoint_url=settings.canary_endpoint_url,
            timeout=settings.timeout,
        )
        with self._closing.call():
            return await self._threads.run(list_one)

    async def inventory(self) -> None:
        """None: AWS keeps no list of the sessions that it has given out."""

    async def tend(self) -> None:
        """Nothing of ours ages: keys are resolved at every call, and the default chain refreshes itself."""

    async def examine(self) -> Sequence[Doubt]:
        """Whether STS answers, and whose keys the broker has: AWS's root user's would be a disaster."""
        if self._closing.closed:
            return [being_replaced()]
        try:
            with self._closing.call():
                identity = await self._threads.run(lambda: self._client().get_caller_identity())
        except FAILURES as error:
            return [unreachable(told(error, self._name, "ask who it is"))]
        return list(doubts_of_identity(identity))

    async def close(self) -> None:
        """Let calls under way finish, then close the connections."""
        await self._closing.close()
        await self._threads.close()
        if self._made is not None:
            self._made.close()

    # ------------------------------------------------------------------ asking

    def _request(self, handle: Handle, scope: Scope, policy: str, seconds: int) -> dict[str, Any]:
        attempt = str(handle["attempt"])
        request: dict[str, Any] = {
            "RoleArn": str(handle["role_arn"]),
            "RoleSessionName": attempt,
            "SourceIdentity": attempt,
            "DurationSeconds": seconds,
            "Policy": policy,
            "Tags": [{"Key": key, "Value": value} for key, value in _tags(scope, str(handle["holder"])).items()],
        }
        if self._settings.external_id is not None:
            request["ExternalId"] = self._settings.external_id
        return request

    def _assume(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._client().assume_role(**request)

    def _client(self) -> STSClient:
        """Made once, by the thread that needs it first: loading the SDK's models takes a while."""
        with self._making:
            if self._made is None:
                settings = self._settings
                self._made = sts_client(
                    settings.region,
                    self._keys,
                    endpoint_url=settings.endpoint_url,
                    timeout=settings.timeout,
                    threads=settings.threads,
                )
            return self._made

    # ------------------------------------------------------------------ comparing what came back

    def _checked(
        self, answer: Mapping[str, Any], request: Mapping[str, Any], deadline: datetime, asked_end: datetime
    ) -> Issued:
        keys, user = answer.get("Credentials"), answer.get("AssumedRoleUser")
        if not isinstance(keys, dict) or not isinstance(user, dict):
            raise self._half("Credentials or AssumedRoleUser")
        ends = keys.get("Expiration")
        if not isinstance(ends, datetime) or ends.tzinfo is None:
            raise self._half("Expiration")
        arn, assumed_id = self._text(user, "Arn"), self._text(user, "AssumedRoleId")
        credential = AwsSession(
            access_key_id=self._text(keys, "AccessKeyId"),
            secret_access_key=Secret(self._text(keys, "SecretAccessKey")),
            session_token=Secret(self._text(keys, "SessionToken")),
            region=self._settings.region,
            assumed_role_arn=arn,
            session_policy=request["Policy"],
        )
        attempt = request["RoleSessionName"]
        if arn != _session_arn(request["RoleArn"], attempt) or not assumed_id.endswith(f":{attempt}"):
            raise self._mismatch("the session is not one of the role and the name that were asked for")
        if answer.get("SourceIdentity", attempt) != attempt:  # an absent one: some doubles do not know it
            raise self._mismatch("the session has another source identity than was asked for")
        if ends > asked_end + timedelta(minutes=1):  # our clock and theirs differ
            raise self._mismatch("the session lives longer than was asked for")
        observed: dict[str, JsonValue] = {
            "assumed_role_arn": arn,
            "assumed_role_id": assumed_id,
            "native_expiration": ends.astimezone(UTC).isoformat(),
            "session_policy_characters": len(request["Policy"]),
        }
        packed = answer.get("PackedPolicySize")
        if isinstance(packed, int):
            observed["packed_policy_percent"] = packed
        return Issued(credential, expires_at=deadline, observed=observed)

    def _text(self, part: Mapping[str, Any], name: str) -> str:
        value = part.get(name)
        if not isinstance(value, str) or not value:
            raise self._half(name)
        return value

    def _not_begun(self, why: str, hint: str) -> UpstreamFailed:
        return UpstreamFailed(
            Reason.UPSTREAM_UNAVAILABLE, why, outcome_known=True, hint=hint, metadata={"connector": self._name}
        )

    def _half(self, name: str) -> UpstreamFailed:
        return UpstreamFailed(
            Reason.UPSTREAM_UNAVAILABLE,
            f"{self._name} said success, but {name} is missing or malformed.",
            hint="Retry later with the same request_id.",
            metadata={"connector": self._name},
        )

    def _mismatch(self, what: str) -> UpstreamFailed:
        return UpstreamFailed(
            Reason.UPSTREAM_GRANT_MISMATCH,
            f"{self._name} granted something else than was asked: {what}.",
            hint="Operators: is the endpoint really AWS STS?",
            metadata={"connector": self._name},
        )


def _role_arn(scope: Scope, partition: str) -> str:
    role = scope.grant.get("role_name")
    for what, value, form in (("role_name", role, _ROLE_NAME), ("account", scope.account, _ACCOUNT)):
        if not isinstance(value, str) or not form.match(value):
            raise InvalidInput(
                Reason.CONFIG_INVALID,
                f"{what} of template {scope.template} is not one of AWS: {ascii(value)[:100]}.",
                hint="Operators: an account is 12 digits; a role name has letters, digits and +=,.@_-.",
                metadata={"template": scope.template, "field": what},
            )
    return f"arn:{partition}:iam::{scope.account}:role/{role}"


def _session_arn(role_arn: str, session: str) -> str:
    """``arn:P:iam::A:role/path/R`` as STS names its session: ``arn:P:sts::A:assumed-role/R/S``, without the path."""
    head, _, role = role_arn.partition(":role/")
    return f"{head.replace(':iam::', ':sts::')}:assumed-role/{role.rpartition('/')[2]}/{session}"


def _tags(scope: Scope, holder: str) -> dict[str, str]:
    if not holder.startswith("spiffe://"):
        holder = _NOT_IN_TAG.sub("_", holder)[:_LONGEST_TAG]  # a person: issuer#subject, in characters that AWS takes
    return {"jit-holder": holder, "jit-template": scope.template, "jit-environment": scope.environment}


def _within(what: str, value: str, form: re.Pattern[str], limit: int) -> None:
    if len(value) > limit:
        raise InvalidInput(
            Reason.SCOPE_TOO_LARGE,
            f"{what} has {len(value)} characters; AWS takes {limit}.",
            metadata={"field": what, "characters": str(len(value)), "limit": str(limit)},
        )
    if not form.match(value):
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"{what} holds a character that AWS does not take: {ascii(value)[:200]}.",
            metadata={"field": what, "value": ascii(value)[:200]},
        )
