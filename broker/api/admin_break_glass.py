"""AdminService: break-glass, each RPC a translation to one call of a desk and back."""

from __future__ import annotations

from typing import Any

from broker.api import convert, convert_break_glass
from broker.api.v1 import break_glass_pb2 as pb
from broker.api.v1 import lease_pb2
from broker.breakglass.reviews import OverrideKind
from broker.breakglass.rules import unfit
from broker.errors import InvalidInput, Reason
from broker.issuance.break_glass import BreakGlassDesk
from broker.issuance.break_glass_codes import CodeDesk
from broker.issuance.break_glass_order import BreakGlassOrder
from broker.issuance.break_glass_reviews import OverrideOrder, ReviewDesk
from broker.issuance.caller import OperatorCaller

DEFAULT_PAGE = 100


class BreakGlassRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: BreakGlassDesk, reviews: ReviewDesk, codes: CodeDesk) -> None:
        self._desk = desk
        self._reviews = reviews
        self._codes = codes

    # ------------------------------------------------------------------ use

    async def BreakGlass(
        self, request: pb.BreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.BreakGlassResponse:
        """A credential, once, for whoever passes over approvals."""
        order, code = _order(request), caller.operator.code
        proven = None if code is None else await self._codes.prove(caller.tenant, caller.id, code)
        grant = await self._desk.use(caller, order, fresh_id_token=request.fresh_id_token, proven=proven)
        return pb.BreakGlassResponse(
            decision=convert.decision(grant.decision, grant.contract),
            lease=None if grant.lease is None else convert.lease(grant.lease, caller.now),
            credential=None if grant.credential is None else convert.credential(grant.credential),
        )

    async def ConfirmBreakGlass(
        self, request: pb.ConfirmBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> lease_pb2.Lease:
        """The credential has arrived."""
        await self._by_the_same_code(caller, request.lease_id)
        return convert.lease(await self._desk.confirm(caller, request.lease_id, request.attempt_id), caller.now)

    async def EndBreakGlass(
        self, request: pb.EndBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.BreakGlassUse:
        """End a use now."""
        await self._by_the_same_code(caller, request.lease_id)
        use, lease = await self._desk.end(caller, request.lease_id, convert.duration(request.wait, "wait"))
        return convert_break_glass.use(use, lease, caller.now)

    async def GetBreakGlass(
        self, request: pb.GetBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.BreakGlassUse:
        """One use."""
        use, lease = await self._desk.get(caller, request.lease_id)
        return convert_break_glass.use(use, lease, caller.now)

    async def ListBreakGlass(
        self, request: pb.ListBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListBreakGlassResponse:
        """A page of uses, and with the first one what the caller may break glass on."""
        after, limit = request.page_token, request.page_size or DEFAULT_PAGE
        found, token = await self._desk.list(caller, unsettled=not request.include_settled, after=after, limit=limit)
        options = () if after or caller.operator.workload else await self._desk.options(caller)
        return pb.ListBreakGlassResponse(
            uses=[convert_break_glass.use(use, lease, caller.now) for use, lease in found],
            next_page_token=token,
            options=[convert_break_glass.option(each) for each in options],
        )

    # ------------------------------------------------------------------ what others do

    async def ReviewBreakGlass(
        self, request: pb.ReviewBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.BreakGlassUse:
        """Record a review."""
        await self._reviews.review(
            caller,
            request.lease_id,
            request.request_id,
            request.findings,
            fresh_id_token=request.fresh_id_token,
        )
        use, lease = await self._desk.get(caller, request.lease_id)
        return convert_break_glass.use(use, lease, caller.now)

    async def OverrideBreakGlass(
        self, request: pb.OverrideBreakGlassRequest, caller: OperatorCaller, context: Any
    ) -> pb.OverrideBreakGlassResponse:
        """One person's word for somebody else's next use."""
        kind = pb.OverrideBreakGlassRequest.Kind.Name(request.kind).removeprefix("KIND_")
        order = OverrideOrder(request.request_id, OverrideKind[kind], request.subject, request.person, request.reason)
        given = await self._reviews.override(caller, order, fresh_id_token=request.fresh_id_token)
        return pb.OverrideBreakGlassResponse(
            override_id=given.id, by=given.by, needed=given.needed, expire_time=convert.timestamp(given.expires_at)
        )

    # ------------------------------------------------------------------ sealed codes

    async def CreateBreakGlassCodes(
        self, request: pb.CreateBreakGlassCodesRequest, caller: OperatorCaller, context: Any
    ) -> pb.CreateBreakGlassCodesResponse:
        """Ask for a batch; or make one that somebody else has asked for."""
        token = request.fresh_id_token
        if not request.batch_id:
            batch = await self._codes.request(
                caller, request.request_id, request.person, request.count, request.reason, fresh_id_token=token
            )
            return pb.CreateBreakGlassCodesResponse(batch=convert_break_glass.batch(batch))
        if request.person or request.count or request.reason:
            what = "a batch is made as it was asked for, with no other person, count or reason"
            raise unfit("batch_id", what, "Leave them out.")
        made = await self._codes.make(caller, request.batch_id, fresh_id_token=token)
        return pb.CreateBreakGlassCodesResponse(
            batch=convert_break_glass.batch(made.batch),
            codes=[
                pb.PrintedCode(code_id=kept.id, code=printed.reveal(), expire_time=convert.timestamp(kept.expires_at))
                for kept, printed in made.codes
            ],
        )

    async def ListBreakGlassCodes(
        self, request: pb.ListBreakGlassCodesRequest, caller: OperatorCaller, context: Any
    ) -> pb.ListBreakGlassCodesResponse:
        """What there is of codes."""
        waiting, kept = await self._codes.list(caller)
        return pb.ListBreakGlassCodesResponse(
            waiting=[convert_break_glass.batch(each) for each in waiting],
            codes=[convert_break_glass.kept_code(each, caller.now) for each in kept],
        )

    async def RevokeBreakGlassCodes(
        self, request: pb.RevokeBreakGlassCodesRequest, caller: OperatorCaller, context: Any
    ) -> pb.RevokeBreakGlassCodesResponse:
        """Revoke a code, or a batch."""
        return pb.RevokeBreakGlassCodesResponse(revoked=await self._codes.revoke(caller, request.named))

    # ------------------------------------------------------------------ who it is

    async def _by_the_same_code(self, caller: OperatorCaller, lease_id: str) -> None:
        """Who comes with a code comes for the one lease that it got."""
        code = caller.operator.code
        if code is not None:
            proven = await self._codes.prove(caller.tenant, caller.id, code)
            await self._desk.check_code(caller, lease_id, proven)


def _order(message: pb.BreakGlassRequest) -> BreakGlassOrder:
    """What was asked. A missing TTL is refused here, because zero would be something else."""
    if not message.HasField("ttl"):
        raise InvalidInput(
            Reason.TTL_INVALID,
            "ttl is missing; there is no default.",
            hint="Say for how long: --ttl 30m.",
            metadata={"field": "ttl"},
        )
    return BreakGlassOrder(
        request_id=message.request_id,
        template=message.template,
        account=message.account,
        environment=message.environment,
        resource=message.resource,
        ttl=convert.duration(message.ttl, "ttl", Reason.TTL_INVALID),
        reason=message.reason,
        incident=message.incident,
        parameters=dict(message.parameters),
        task_id=message.task_id,
        agent=message.agent,
        plan=message.plan,
    )
