"""What people do with access requests: look at them, approve, deny. The one path for every door.

A yes names the digest of what its giver saw, and is taken only for exactly that. Who may give it is decided here,
and counted again by :mod:`broker.issuance.counting` when it is used; a door only says who somebody is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from broker.approval.digest import check_digest
from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST
from broker.approval.machine import RequestEvent, can, refusal
from broker.approval.quorum import may_vote, rule_for
from broker.approval.repeated import repeats
from broker.approval.separation import OWNER, person_id
from broker.errors import BrokerError, Denied, InvalidInput, Reason
from broker.identity.spiffe_id import SpiffeId
from broker.issuance.caller import OperatorCaller
from broker.issuance.counting import Standing, check_terms, groups_now, standing
from broker.issuance.fresh_logins import FreshLogins, proven
from broker.issuance.requests import page_of
from broker.issuance.review import Review, review_of
from broker.ports.access_requests import FiledRequest, RequestFilter, Vote
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.ports.lease_store import LeaseStore
from broker.ports.proofs import ProofRecord


class ApprovalDesk:
    """Everything people do with access requests. ``connectors`` finds a connector by name, for its contract."""

    def __init__(
        self, store: LeaseStore, connectors: Callable[[str], Connector | None], fresh: FreshLogins, clock: Clock
    ) -> None:
        self._store = store
        self._fresh = fresh
        self._connectors = connectors
        self._clock = clock

    async def list(
        self, caller: OperatorCaller, *, open_only: bool, after: str, limit: int
    ) -> tuple[Sequence[FiledRequest], str]:
        """A page of everybody's requests, newest first, and the id to continue after (empty: the end)."""
        return await page_of(self._store, RequestFilter(caller.tenant, "", open_only), after, limit)

    async def review(self, caller: OperatorCaller, access_request_id: str) -> Review:
        """Everything that ``caller`` needs to decide on one request."""
        filed = await self._store.get_access_request(caller.tenant, access_request_id)
        task = await self._store.get_task(caller.tenant, filed.request.task_id)
        last = await self._store.last_approved_plan(caller.tenant, filed.principal, filed.scope.template)
        connector = self._connectors(filed.scope.connector)
        promised = None if connector is None else connector.contract.of_grant(filed.scope.grant)
        return review_of(filed, task, caller.deploy, promised, last, caller.now)

    async def approve(
        self,
        caller: OperatorCaller,
        access_request_id: str,
        digest: str,
        *,
        fresh_id_token: str,
        approval: str = "",
        note: str = "",
        request_id: str = "",
    ) -> FiledRequest:
        """One yes, for the approval named, or for the first that lacks one of the caller's. Counted at once.

        The same again, under its ``request_id``, returns what the request has become and counts for nothing more.
        Nobody has to log in for what is refused anyway: the fresh login is asked for last.

        Raises :class:`Denied` (SELF_APPROVAL, NOT_AN_APPROVER, AGENT_NOT_REGISTERED, FRESH_LOGIN_*),
        :class:`Unauthenticated` (ID_TOKEN_*), :class:`WrongState` for a request that is not open, or whose template or
        policies have changed, and what ``LeaseStore.vote`` raises.
        """
        filed = await self._store.get_access_request(caller.tenant, access_request_id)
        if _repeats(caller, filed, digest, request_id, yes=True):
            return filed
        if not can(filed.state, RequestEvent.APPROVE):
            raise refusal(filed.state, filed.id)
        check_terms(filed, caller.deploy)
        caller.deploy.registry.find(SpiffeId.parse(filed.holder))
        task = await self._store.get_task(caller.tenant, filed.request.task_id)
        stands = standing(filed, caller.deploy, task.sponsor, caller.now)
        _check_no_part(caller, filed, stands)
        check_digest(digest, filed.digest, filed.id)
        _rule(caller, filed, stands, approval)
        proof = self._proof(caller, filed, fresh_id_token)
        caller = proven(caller, proof)
        vote = self._vote(caller, _rule(caller, filed, stands, approval), note, request_id)
        vote = replace(vote, proof=proof)
        enough = partial(_satisfied, caller=caller, sponsor=task.sponsor)
        return await self._store.vote(caller.tenant, filed.id, digest, vote, enough)

    async def deny(
        self, caller: OperatorCaller, access_request_id: str, digest: str, *, note: str = "", request_id: str = ""
    ) -> FiledRequest:
        """One no, which is final. Whoever has a say in one of its approvals may give it, and the agent's owner.

        Unlike a yes it needs nothing to fit any more: it only takes away. The same again is as for a yes.
        """
        filed = await self._store.get_access_request(caller.tenant, access_request_id)
        if _repeats(caller, filed, digest, request_id, yes=False):
            return filed
        _check_say(caller, filed)
        vote = self._vote(caller, "", note, request_id)
        return await self._store.vote(caller.tenant, filed.id, digest, vote, _never)

    def _proof(self, caller: OperatorCaller, filed: FiledRequest, token: str) -> ProofRecord:
        fields = {"access_request_id": filed.id, "digest": filed.digest}
        return self._fresh.demand(
            caller, token, APPROVE_ACCESS_REQUEST, fields, about=filed.id, not_before=filed.created_at
        )

    def _vote(self, caller: OperatorCaller, rule: str, note: str, request_id: str) -> Vote:
        person = caller.operator.person
        return Vote(
            issuer=person.issuer,
            subject=person.subject,
            yes=bool(rule),
            rule=rule,
            how=caller.operator.how,
            note=note,
            groups=tuple(sorted(_groups(caller))),
            at=self._clock.now(),
            request_id=request_id,
        )


def _repeats(caller: OperatorCaller, filed: FiledRequest, digest: str, request_id: str, *, yes: bool) -> bool:
    """Whether the caller has said exactly this before. About another digest nobody has said anything."""
    person = caller.operator.person
    return digest == filed.digest and repeats(person.issuer, person.subject, request_id, yes, filed.votes, filed.id)


def _satisfied(filed: FiledRequest, *, caller: OperatorCaller, sponsor: str) -> bool:
    return standing(filed, caller.deploy, sponsor, caller.now).tally.satisfied


def _never(filed: FiledRequest) -> bool:
    return False


def _groups(caller: OperatorCaller) -> frozenset[str]:
    """The caller's groups by the people in force and by the login; none for one who is disabled."""
    person = caller.operator.person
    listed = groups_now(caller.deploy.people, caller.now).get(person_id(person), frozenset())
    return listed & person.groups


def _check_no_part(caller: OperatorCaller, filed: FiledRequest, stands: Standing) -> None:
    part = stands.interests.get(person_id(caller.operator.person))
    if part is not None:
        raise Denied(
            Reason.SELF_APPROVAL,
            f"{caller.id} {part}, and so may not approve access request {filed.id}.",
            hint="Somebody without a part in it decides.",
            metadata={"accessRequestId": filed.id, "part": part},
        )


def _check_say(caller: OperatorCaller, filed: FiledRequest) -> None:
    """Whether the caller may say no."""
    who, groups = person_id(caller.operator.person), _groups(caller)
    enabled = who in groups_now(caller.deploy.people, caller.now)
    rules = [caller.deploy.approvals[name] for name in filed.approvals if name in caller.deploy.approvals]
    owners = {each.person for each in filed.interests if each.part == OWNER}
    asked = any(may_vote(rule, groups) for rule in rules)
    if not enabled or not (asked or who in owners):
        raise _no_approver(caller, filed)


def _rule(caller: OperatorCaller, filed: FiledRequest, stands: Standing, asked: str) -> str:
    """The approval that the caller's yes counts for."""
    if asked and asked not in stands.rules:
        raise InvalidInput(
            Reason.FIELD_INVALID,
            f"access request {filed.id} does not need the approval {asked!a}.",
            hint=f"It needs: {', '.join(filed.approvals)}.",
            metadata={"field": "approval", "approvals": ",".join(filed.approvals)},
        )
    groups = _groups(caller)
    if asked:
        rule = asked if may_vote(stands.rules[asked], groups) else None
    else:
        rule = rule_for(groups, stands.tally, stands.rules)
    if rule is None:
        raise _no_approver(caller, filed)
    return rule


def _no_approver(caller: OperatorCaller, filed: FiledRequest) -> BrokerError:
    return Denied(
        Reason.NOT_AN_APPROVER,
        f"{caller.id} is in no group whose yes access request {filed.id} lacks.",
        hint="The review says which groups are asked; people.yaml lists who is in them.",
        metadata={"accessRequestId": filed.id, "approvals": ",".join(filed.approvals)},
    )
