"""Sessions of a MinIO server, by its STS AssumeRole (kind ``minio-sts``): the one STS that can take a session back.

A session carries the attempt's id as its *revoke type* (``TokenRevokeType``, a form field of MinIO's own), by
which it, and it alone, is ended later (``minio_revoke.py``). Three things end it: that; the Deny in its own
session policy from the deadline on, with the broker dead too; and MinIO itself after 900 s, its floor.

The session's access key is noted before anything is delivered: it names the session and opens nothing, and
without it nobody could prove that the session is gone. What the operator must have set up is a user of the
broker's own, whose policy holds what templates may give, and no admin right.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.connectors.aws_client import AwsKeys, sts_client
from broker.connectors.aws_failures import FAILURES
from broker.connectors.aws_session_policy import policy_time, session_policy
from broker.connectors.aws_use import list_bucket
from broker.connectors.minio_admin import MinioAdmin, MinioFailure
from broker.connectors.minio_answer import session_of, told
from broker.connectors.minio_examine import doubts_of_account, unreachable
from broker.connectors.minio_revoke import SessionEnder
from broker.connectors.refusals import check_can_begin, grant_mismatch
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.errors import InvalidInput, Reason, UpstreamFailed
from broker.lease.credential import AwsSession, Binding, Contract, ContractClass, Credential
from broker.ports.clock import Clock
from broker.ports.connectors import Checkpoint, Doubt, Handle, Issued, NotYet, RevokeContext, RevokeOutcome, Use
from broker.scope.model import Scope
from broker.secret import Secret

if TYPE_CHECKING:
    from mypy_boto3_sts import STSClient

# MinIO takes DurationSeconds from 900; more than twelve hours is no lease of an agent's task.
_SHORTEST, _LONGEST = 900, 43_200
_ATTEMPT = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{1,63}\Z", re.ASCII)
# MinIO has no roles and reads neither of these; the SDK demands the first.
_NO_ROLE = "arn:aws:iam::000000000000:role/none"

CONTRACT = Contract(
    cls=ContractClass.IMMEDIATE,
    binding=Binding.NONE,
    # The deadline is a whole second, rounded down: a TTL below 2 s may come to nothing.
    ttl_floor=timedelta(seconds=2),
    ttl_ceiling=timedelta(seconds=_LONGEST),
    on_expiry=timedelta(seconds=1),
    # Milliseconds; a broker and a MinIO that share two busy cores were seen to take three seconds.
    on_revoke=timedelta(seconds=5),
    broker_dead="MinIO denies every request of the session from its deadline on: the Deny is in the session itself.",
    upstream_dead="Where MinIO does not answer, the session cannot be used; when it is back, the Deny in it holds.",
    on_broker_dead=timedelta(seconds=1),
    on_upstream_dead=timedelta(seconds=1),
    gives=AwsSession,
)


@dataclass(frozen=True, slots=True)
class MinioStsSettings:
    """What the operator says about one such upstream. Times in seconds."""

    endpoint_url: str  # where agents, and the broker's AssumeRole, go
    user: str  # of the broker's own; MinIO's name for an access key
    buckets: tuple[str, ...]  # that its policy may reach, as declared
    nodes: tuple[str, ...] = ()  # every server of a cluster; none: endpoint_url is the only one
    canary_bucket: str | None = None  # what a canary lists; None: nothing can be tried
    region: str = "us-east-1"
    ca_file: str | None = None
    timeout: float = 5.0
    threads: int = 8


class MinioSts:
    """The connector. ``secret_key`` yields the secret of the broker's own user, and is asked at every signature."""

    def __init__(self, name: str, settings: MinioStsSettings, secret_key: Callable[[], Secret], clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._keys = AwsKeys(lambda: Secret(settings.user), secret_key)
        self._admin = MinioAdmin(
            self._keys,
            settings.region,
            timeout=settings.timeout,
            threads=2 * settings.threads,
            ca_file=settings.ca_file,
        )
        # Two pools: a storm of requests must not keep credentials from being ended.
        self._issuing = Threads(f"{name}-issue", settings.threads)
        self._revoking = Threads(f"{name}-revoke", settings.threads)
        self._nodes = settings.nodes or (settings.endpoint_url,)
        self._ender = SessionEnder(name, settings.user, self._nodes, self._admin, self._revoking)
        self._closing = Closing()
        self._making = threading.Lock()
        self._made: STSClient | None = None

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """IMMEDIATE: MinIO ends one session when asked, and says so."""
        return CONTRACT

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The names, and a rehearsal of what MinIO would refuse for size or form.

        Raises InvalidInput: SCOPE_TOO_LARGE with the figure, PARAMETER_INVALID, or CONFIG_INVALID.
        """
        if not _ATTEMPT.match(attempt_id):
            raise InvalidInput(
                Reason.SCOPE_TOO_LARGE,
                f"the attempt id {attempt_id!a} cannot name a session: it takes 2 to 64 letters, digits and hyphens,"
                f" this has {len(attempt_id)} characters.",
                metadata={"attempt": ascii(attempt_id)[:100], "length": str(len(attempt_id)), "limit": "64"},
            )
        session_policy(scope, expires_at, minio_ends)
        return {"attempt": attempt_id, "user": self._settings.user, "holder": holder}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A session until ``expires_at``, rounded down to a whole second.

        Raises UpstreamFailed, InvalidInput, and whatever ``checkpoint`` raises.
        """
        deadline, begun = expires_at.replace(microsecond=0), self._clock.now()
        check_can_begin(self._name, closed=self._closing.closed, left=deadline - begun)
        policy = session_policy(scope, deadline, minio_ends)
        seconds = min(max(_SHORTEST, -((begun - deadline) // timedelta(seconds=1))), _LONGEST)
        with self._closing.call():
            answer = await self._ask(handle, policy, seconds)
            settings = self._settings
            session, ends = session_of(
                answer, self._name, endpoint_url=settings.endpoint_url, region=settings.region, policy=policy
            )
            noted = {**handle, "access_key": session.access_key_id}
            try:
                await checkpoint(noted, session.access_key_id)
            except BaseException:
                self._revoking.later(partial(self._ender.end_quietly, noted))
                raise
            if ends > begun + timedelta(seconds=seconds) + timedelta(minutes=1):  # our clock and theirs differ
                raise self._mismatch("the session lives longer than was asked for")
        return Issued(
            session,
            expires_at=deadline,
            observed={
                "access_key_id": session.access_key_id,
                "native_expiration": ends.astimezone(UTC).isoformat(),
                "session_policy_characters": len(policy),
            },
        )

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """End the session by its revoke type on every node, and look that it is gone."""
        if self._closing.closed:
            return NotYet(f"{self._name} is being replaced.", failed=False)
        with self._closing.call():
            return await self._ender.end(handle, context)

    async def use(self, credential: Credential, scope: Scope) -> Use:
        """List the bucket that operators named for it. Raises UpstreamFailed, too, where they named none."""
        settings = self._settings
        list_one = partial(
            list_bucket,
            self._name,
            credential,
            settings.canary_bucket,
            endpoint_url=settings.endpoint_url,
            timeout=settings.timeout,
            ca_file=settings.ca_file,
        )
        with self._closing.call():
            return await self._revoking.run(list_one)

    async def inventory(self) -> None:
        """None: MinIO lists access keys of sessions that are in a node's memory, and tells nobody their revoke type."""

    async def tend(self) -> None:
        """Nothing of ours ages: the secret is resolved at every call."""

    async def examine(self) -> Sequence[Doubt]:
        """Whether every node answers and takes the broker's user, and whether that may do no more than declared."""
        if self._closing.closed:
            return [being_replaced()]
        found: list[Doubt] = []
        with self._closing.call():
            for node in self._nodes:
                try:
                    account = await self._revoking.run(partial(self._admin.account, node))
                except MinioFailure as failure:
                    found.append(unreachable(node, failure))
                else:
                    found += doubts_of_account(account, self._settings.user, self._settings.buckets)
        return list(dict.fromkeys(found))

    async def close(self) -> None:
        """Let calls under way finish, then let go of threads and connections."""
        await self._closing.close()
        await self._issuing.close()
        await self._revoking.close()
        self._admin.close()
        if self._made is not None:
            self._made.close()

    # ------------------------------------------------------------------ asking

    async def _ask(self, handle: Handle, policy: str, seconds: int) -> Mapping[str, Any]:
        request = {
            "RoleArn": _NO_ROLE,
            "RoleSessionName": str(handle["attempt"]),
            "DurationSeconds": seconds,
            "Policy": policy,
        }
        try:
            return await self._issuing.run(
                partial(self._assume, request), undo=lambda _: self._ender.end_quietly(handle)
            )
        except FAILURES as error:
            failure = told(error, self._name, len(policy))
        raise failure

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
                    ca_file=settings.ca_file,
                )
                self._made.meta.events.register("before-call.sts.AssumeRole", _name_the_revoke_type)
            return self._made

    def _mismatch(self, what: str) -> UpstreamFailed:
        return grant_mismatch(self._name, what, "Operators: is the endpoint really MinIO?")


def minio_ends(deadline: datetime) -> list[dict[str, object]]:
    """What ends a session policy, as MinIO reads it: it refuses ``sts:*``, and ``*`` means STS alone to it.

    Its sessions can make no other ones: a temporary key is refused by AssumeRole, and what else makes keys is
    an ``admin:`` action, which a session policy does not allow unless it says so.
    """
    # Lists, and not texts, because MinIO counts the characters of its own form, which has lists.
    at = {"DateGreaterThanEquals": {"aws:CurrentTime": [policy_time(deadline)]}}
    return [
        {"Sid": "BrokerDeadline", "Effect": "Deny", "Action": ["s3:*"], "Resource": ["arn:aws:s3:::*"], "Condition": at}
    ]


def _name_the_revoke_type(params: dict[str, Any], **_: object) -> None:
    """A form field that AWS's model does not know: what the session is ended by."""
    params["body"]["TokenRevokeType"] = params["body"]["RoleSessionName"]
