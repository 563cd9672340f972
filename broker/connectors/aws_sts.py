"""Sessions of an AWS role, by STS AssumeRole (kind ``aws-sts``).

A session carries the attempt's id twice, as RoleSessionName and as SourceIdentity, so that CloudTrail
and every later Deny can name it; tags say for whom and what. What ends it at its deadline is the Deny in
its own session policy (``aws_session_policy.py``), enforced by AWS at every request, with the broker dead
too. So an attempt whose outcome is unknown ends at the same time as one that is known: the deadline was
in the request.

STS cannot take a session back. Where the settings name a ``revocation``, a Deny on the role ends it sooner
(``aws_denials.py``): then the role's id is looked up and noted before STS is asked, because with it the name of a
session is known of which no answer ever came.

What the operator must have set up: the role's trust policy allows the broker sts:AssumeRole,
sts:TagSession and sts:SetSourceIdentity (and demands the ExternalId, if one is configured).
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from broker.connectors.aws_assume import named, request_of, role_arn
from broker.connectors.aws_client import Base, Calls, iam_client, sts_client
from broker.connectors.aws_contract import LONGEST_SECONDS, SHORTEST_SECONDS, AwsStsSettings, contract_of
from broker.connectors.aws_denials import REACH_IT, Denials, of_another_account
from broker.connectors.aws_deny import Session
from broker.connectors.aws_deny_plan import CLOCKS
from broker.connectors.aws_examination import Examiner
from broker.connectors.aws_examine import doubts_of_identity, unreachable
from broker.connectors.aws_failures import FAILURES, not_ended, told
from broker.connectors.aws_iam import Iam, Role
from broker.connectors.aws_session import issued_of
from broker.connectors.aws_session_policy import managed_policies, session_policy
from broker.connectors.aws_use import list_bucket
from broker.connectors.refusals import check_can_begin, not_begun
from broker.connectors.threads import Closing, Threads, being_replaced
from broker.lease.credential import Contract, Credential
from broker.lease.deadlines import no_late_create_after
from broker.ports.clock import Clock
from broker.ports.connectors import (
    Checkpoint,
    Doubt,
    Expired,
    Handle,
    Issued,
    NotYet,
    RevokeContext,
    Revoked,
    RevokeOutcome,
    Use,
)
from broker.scope.model import Scope

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_sts import STSClient

_ROLE_ID = re.compile(r"[A-Z0-9]{4,128}\Z", re.ASCII)
# How long an answer of GetRole is believed; a role that was made anew under the same name has another id.
_ROLE_ID_FOR = timedelta(minutes=10)


class AwsSts:
    """The connector. Without ``base`` the SDK's default credential chain finds the broker's credentials."""

    def __init__(self, name: str, settings: AwsStsSettings, base: Base, clock: Clock) -> None:
        self._name = name
        self._settings = settings
        self._base = base
        self._clock = clock
        self._contract = contract_of(settings)
        self._threads = Threads(name, settings.threads)
        self._closing = Closing()
        self._making = threading.Lock()
        self._made: STSClient | None = None
        self._iam = Iam(self._iam_client, self._threads)
        self._role_ids: dict[Role, tuple[str, datetime]] = {}
        self._denials: Denials | None = None
        if settings.revocation is not None and not settings.proves_identity:
            revocation = settings.revocation
            self._denials = Denials(name, self._iam, clock, revocation.epoch, revocation.propagation)

    @property
    def name(self) -> str:
        """The name templates use."""
        return self._name

    @property
    def contract(self) -> Contract:
        """EXPIRY_ONLY: the deadline in the session policy ends it; BY_POLICY where there is a revocation."""
        return self._contract

    def prepare(self, scope: Scope, attempt_id: str, holder: str, expires_at: datetime, *, task_id: str = "") -> Handle:
        """The names, and a rehearsal of everything STS would refuse for size or form.

        Raises InvalidInput: SCOPE_TOO_LARGE with the figure, PARAMETER_INVALID, or CONFIG_INVALID.
        """
        names = named(scope, attempt_id, holder, task_id)
        session_policy(scope, expires_at, network=self._settings.network)
        managed_policies(scope, self._settings.partition)
        handle = {**names, "role_arn": role_arn(scope, self._settings.partition)}
        # With it, a handle that lacks the role's id is that of a call that never began.
        return handle if self._denials is None else {**handle, "revocable": True}

    async def issue(self, handle: Handle, scope: Scope, expires_at: datetime, checkpoint: Checkpoint) -> Issued:
        """A session until ``expires_at``, rounded down to a whole second. Raises UpstreamFailed, InvalidInput.

        ``checkpoint`` notes what a Deny will need, where there can be one. Without, it is not needed: one call, named
        by us beforehand, that nothing could take back.
        """
        deadline = expires_at.replace(microsecond=0)
        begun = self._clock.now()
        check_can_begin(self._name, closed=self._closing.closed, left=deadline - begun)
        seconds = min(max(SHORTEST_SECONDS, -((begun - deadline) // timedelta(seconds=1))), LONGEST_SECONDS)
        request = request_of(handle, scope, self._settings, deadline, seconds)
        with self._closing.call():
            if self._denials is None:
                return await self._issued(request, deadline, begun)
            noted = await self._note(handle, request, checkpoint)
            issued = await self._issued(request, deadline, begun)
            if (assumed_id := str(issued.observed["assumed_role_id"])) != _user_id(noted):
                # The role was made anew: what was noted would deny nobody.
                self._role_ids.pop(Role(request["RoleArn"]), None)
                await checkpoint({**noted, "role_id": assumed_id.partition(":")[0]}, assumed_id)
            return issued

    async def revoke(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Expired from the deadline on, issued or not; before it, a Deny on the role, or else waiting."""
        left = context.expires_at - context.now
        if left <= timedelta(0):
            return Expired()
        if self._denials is None:
            why = "only time ends an STS session; its policy denies everything from the deadline on."
            return NotYet(why, left, failed=False)
        if self._closing.closed:
            return NotYet(f"{self._name} is being replaced by a newer definition.", timedelta(seconds=1))
        if handle.get("revocable") is True and "role_id" not in handle:
            wait = no_late_create_after(context.created_at, context.issue_deadline) - context.now
            why = "STS was not asked yet, and may be until then."
            return Revoked({"asked": False}) if wait <= timedelta(0) else NotYet(why, wait, failed=False)
        with self._closing.call():
            return await self._deny(self._denials, handle, context)

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
        """Look after the policies that deny sessions. Keys are resolved at every call, sessions refresh themselves."""
        if self._denials is None or self._closing.closed:
            return
        try:
            with self._closing.call():
                await self._denials.tend()
        except FAILURES as error:
            failure = told(error, self._name, "look after the policies that deny sessions")
        else:
            return
        raise failure

    async def examine(self) -> Sequence[Doubt]:
        """Whether STS answers, whose keys the broker has, and how the roles stand that it assumes.

        AWS's root user's keys would be a disaster, and so would be a role that it could widen.
        """
        if self._closing.closed:
            return [being_replaced()]
        try:
            with self._closing.call():
                identity = await self._threads.run(lambda: self._client().get_caller_identity())
        except FAILURES as error:
            return [unreachable(told(error, self._name, "ask who it is"))]
        settings = self._settings
        roles = {*map(Role, settings.examined_roles), *self._role_ids}
        examiner = Examiner(
            self._name,
            self._iam,
            settings.partition,
            settings.external_id,
            self._denials is not None,
            None if settings.revocation is None else settings.revocation.role_name,
            lambda: self._closing.closed,
        )
        with self._closing.call():
            return [*doubts_of_identity(identity), *await examiner.examine(roles, identity)]

    async def close(self) -> None:
        """Let calls under way finish, then close the connections."""
        await self._closing.close()
        await self._threads.close()
        self._iam.close()
        if self._made is not None:
            self._made.close()

    # ------------------------------------------------------------------ ending sooner

    async def _note(self, handle: Handle, request: Mapping[str, Any], checkpoint: Checkpoint) -> Handle:
        """Durably note the name that the session will have, before STS is asked for it."""
        role = Role(request["RoleArn"])
        assert self._denials is not None  # noqa: S101 - only called where there are
        if (closed := self._denials.closed(role)) is not None:
            raise not_begun(self._name, closed.why, f"Ask again after {closed.until.isoformat()}.")
        try:
            role_id = await self._role_id(role)
        except _Elsewhere as elsewhere:
            raise not_begun(self._name, f"{elsewhere}: what it gave out could not be ended.", REACH_IT) from None
        except FAILURES as error:
            failure = told(error, self._name, "look up the role that sessions are to be denied on")
        else:
            noted: Handle = {**handle, "role_id": role_id, "seconds": request["DurationSeconds"]}
            await checkpoint(noted, _user_id(noted))
            return noted
        failure.outcome_known = True  # STS was not asked
        raise failure

    async def _role_id(self, role: Role, *, anew: bool = False) -> str:
        """Raises what the SDK raises, and _Elsewhere."""
        known = self._role_ids.get(role)
        now = self._clock.now()
        if known is not None and not anew and now - known[1] < _ROLE_ID_FOR:
            return known[0]
        answer = await self._iam.role(role)
        if (why := role.elsewhere(answer)) is not None:
            raise _Elsewhere(why)
        role_id = answer.get("RoleId")
        if not isinstance(role_id, str) or not _ROLE_ID.match(role_id):
            raise ValueError("GetRole said success, but RoleId is missing or malformed")
        self._role_ids[role] = (role_id, now)
        return role_id

    async def _deny(self, denials: Denials, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """Deny the session under every name that it can have; revoked once all of them are."""
        role = Role(str(handle["role_arn"]))
        ids = {str(handle["role_id"])} if "role_id" in handle else set()
        if not ids or not context.outcome_known:
            try:
                ids.add(await self._role_id(role, anew=True))
            except _Elsewhere as elsewhere:
                return of_another_account(elsewhere)
            except FAILURES as error:
                return not_ended(error, self._name, "look up the role of the session")
        issued_by = no_late_create_after(context.created_at, context.issue_deadline)
        seconds = handle.get("seconds")
        native = timedelta(seconds=seconds if isinstance(seconds, int) else LONGEST_SECONDS)
        names = [f"{role_id}:{handle['attempt']}" for role_id in sorted(ids)]
        sessions = [Session(name, issued_by, issued_by + native + CLOCKS) for name in names]
        outcomes = await asyncio.gather(*(denials.deny(role, each, context) for each in sessions))
        return next((each for each in outcomes if not isinstance(each, Revoked)), outcomes[0])

    # ------------------------------------------------------------------ asking

    async def _issued(self, request: Mapping[str, Any], deadline: datetime, begun: datetime) -> Issued:
        try:
            answer = await self._threads.run(partial(self._assume, request))
        except FAILURES as error:
            failure = told(error, self._name)
        else:
            return issued_of(self._name, self._settings.region, answer, request, deadline, begun)
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
                    self._base,
                    endpoint_url=settings.endpoint_url,
                    timeout=settings.timeout,
                    threads=settings.threads,
                )
            return self._made

    def _iam_client(self, account: str) -> IAMClient:
        revocation = self._settings.revocation
        if revocation is None or revocation.role_name is None:
            return self._iam_made_of(None)
        request: dict[str, Any] = {
            "RoleArn": f"arn:{self._settings.partition}:iam::{account}:role/{revocation.role_name}",
            "RoleSessionName": f"jit-broker-{revocation.epoch}"[:64],
            "DurationSeconds": LONGEST_SECONDS,
        }
        if self._settings.external_id is not None:
            request["ExternalId"] = self._settings.external_id
        return self._iam_made_of(lambda: self._client().assume_role(**request))

    def _iam_made_of(self, assume: Callable[[], Mapping[str, Any]] | None) -> IAMClient:
        settings = self._settings
        sts = Calls(settings.region, settings.timeout, settings.threads, settings.endpoint_url)
        endpoint_url = None if settings.revocation is None else settings.revocation.endpoint_url
        return iam_client(replace(sts, endpoint_url=endpoint_url), self._base, sts, assume)


def _user_id(noted: Handle) -> str:
    return f"{noted['role_id']}:{noted['attempt']}"


class _Elsewhere(Exception):
    """The role that IAM knows by the name is another account's."""
