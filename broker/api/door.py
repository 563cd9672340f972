"""The door: what happens to every RPC, whatever it is about.

One wrapper serves unary and streaming methods alike: identity, authorization, size, parsing, field
rules, the handler, the audit event of what a person is shown, error mapping, the refusal's audit event, a log line, a
measurement. A handler
never sees an unauthenticated caller, and nothing leaves without passing here.

Requests are parsed here and not by gRPC, so that one that is too large or malformed gets a reason
and a trace instead of a bare transport error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Generic, Protocol

import grpc
import protovalidate
import structlog
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc import aio

from broker.api import authorization
from broker.api.entrances import Entrance, Guest, Who
from broker.api.errors import status_code, to_status, unexpected
from broker.api.leaks import check_no_secrets
from broker.api.looks import Looks
from broker.api.redaction import redacted
from broker.api.streams import rechecked
from broker.api.tls import MAX_MESSAGE_BYTES
from broker.errors import BrokerError, Defect, Exhausted, InvalidInput, NotReady, Reason
from broker.issuance.among import Among
from broker.issuance.refusals import RefusalBudget, refusal
from broker.ports.clock import Clock, Rng
from broker.ports.lease_store import LeaseStore

log = structlog.get_logger("broker.api")

ANONYMOUS = "anonymous"
DENIED = "denied"
# Seconds after which one that was too many may ask again.
RETRY_AFTER = 1.0


class Measure(Protocol):
    """Where the door reports each finished RPC."""

    def rpc(self, method: str, outcome: str, seconds: float) -> None:
        """``outcome`` is OK or the reason of the refusal."""
        ...


class Door(Generic[Who, Guest]):
    """Wraps handlers. Each listener has a door of its own, which differs in its ``entrance`` and in nothing else."""

    def __init__(
        self,
        entrance: Entrance[Who, Guest],
        store: LeaseStore,
        budget: RefusalBudget,
        looks: Looks,
        measure: Measure,
        clock: Clock,
        rng: Rng,
        tenant: str,
        *,
        at_most: int | None = None,
        among: Among | None = None,
    ) -> None:
        """``at_most`` calls are in hand at a time; None: as many as the transport lets through.

        ``among``: how this daemon stands among others; None: it is alone.
        """
        self._entrance = entrance
        self._at_most = at_most
        self._among = Among() if among is None else among
        self._in_hand = 0
        self._with_an_end = 0  # of these, those that are no streams
        self._closing = False
        self._store = store
        self._budget = budget
        self._looks = looks
        self._measure = measure
        self._clock = clock
        self._rng = rng
        self._tenant = tenant

    def handlers(self, service: ServiceDescriptor, *parts: object) -> grpc.GenericRpcHandler:
        """The handlers of ``service``: for each of its methods, exactly one of ``parts`` has one of that name.

        Raises :class:`Defect` where that is not so, or where a method is for callers who do not come in here.
        """
        table = {}
        for method in service.methods:
            path = f"/{service.full_name}/{method.name}"
            found = [handler for part in parts if (handler := getattr(part, method.name, None)) is not None]
            if len(found) != 1 or authorization.allowed(path) is not self._entrance.serves:
                raise Defect(Reason.INTERNAL, f"{path} is not served by exactly one handler behind its own door.")
            table[method.name] = self._wrap(path, method, found[0])
        return grpc.method_handlers_generic_handler(service.full_name, table)

    def close(self) -> None:
        """End every stream within a second of the last call that has an end: a stop waits for those alone.

        No sooner: while it waits, who holds a task must be heard, or the task would be ended as dropped.
        """
        self._closing = True

    def identify(self, context: aio.ServicerContext[Any, Any]) -> Who:
        """Who is at the other end, proven now. Raises :class:`Unauthenticated`."""
        return self._entrance.identify(context.auth_context(), tuple(context.invocation_metadata() or ()))

    def still_welcome(self, context: aio.ServicerContext[Any, Any], path: str, guest: Guest) -> None:
        """For streams, again and again: what let ``guest`` in would do so now, with today's bundles and rules.

        Raises :class:`Unauthenticated` or :class:`Denied`, and :class:`NotReady` (SHUTTING_DOWN) once it is closed.
        """
        self._check_open()
        if self._entrance.admit(self.identify(context), path).id != guest.id:
            raise Defect(Reason.INTERNAL, "a connection has changed its identity.")

    def check_welcome(self, context: aio.ServicerContext[Any, Any]) -> None:
        """For what needs no more than a proven identity. Raises as :meth:`still_welcome`."""
        self._check_open()
        self._entrance.check_welcome(self.identify(context))

    # ------------------------------------------------------------------ wrapping

    def _wrap(self, path: str, method: MethodDescriptor, handler: Callable[..., Any]) -> Any:
        parse = _parser(method)
        serialize = GetMessageClass(method.output_type).SerializeToString

        async def unary(raw: bytes, context: aio.ServicerContext[Any, Any]) -> Message:
            started = time.perf_counter()
            principal, counted = ANONYMOUS, self._entrance.anonymous
            guest: Guest | None = None
            request: Message | None = None
            self._in_hand += 1
            self._with_an_end += 1
            try:
                self._check_room()
                who = self.identify(context)
                principal = self._entrance.name(who)
                guest = self._admit(who, path)
                counted = guest.counted
                request = parse(raw)
                self._entrance.check_request(who, path, request)
                if log.is_enabled_for(logging.DEBUG):
                    log.debug("request", method=path, principal=principal, body=redacted(request))
                response: Message = await handler(request, guest, context)
                await self._looks.tell(guest.id, path, request)
                # Denied while it was under way: what was issued is not delivered, and is ended (daemon/reloading.py).
                self._entrance.check_welcome(who)
            except BaseException as failure:
                await self._refuse(failure, path, principal, counted, started, context, guest, request)
                raise
            finally:
                self._in_hand -= 1
                self._with_an_end -= 1
            self._done(path, principal, "OK", started)
            return response

        async def stream(raw: bytes, context: aio.ServicerContext[Any, Any]) -> AsyncIterator[Message]:
            started = time.perf_counter()
            principal, counted = ANONYMOUS, self._entrance.anonymous
            guest: Guest | None = None
            request: Message | None = None
            self._in_hand += 1
            try:
                self._check_room()
                who = self.identify(context)
                principal = self._entrance.name(who)
                guest = self._admit(who, path)
                counted = guest.counted
                request = parse(raw)
                self._entrance.check_request(who, path, request)
                await self._looks.tell(guest.id, path, request)
                async for response in rechecked(
                    handler(request, guest, context), partial(self.still_welcome, context, path, guest)
                ):
                    yield response
            except BaseException as failure:
                await self._refuse(failure, path, principal, counted, started, context, guest, request)
                raise
            finally:
                self._in_hand -= 1
            self._done(path, principal, "OK", started)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
        return grpc.unary_unary_rpc_method_handler(unary, None, serialize)

    def _admit(self, who: Who, path: str) -> Guest:
        """Let it in. Raises what the entrance raises, and NotReady (DEPLOY_SET_OVERTAKEN)."""
        if path not in authorization.BEHIND and (behind := self._among.why_overtaken(self._clock.now())) is not None:
            raise behind
        return self._entrance.admit(who, path)

    def _check_open(self) -> None:
        if self._closing and not self._with_an_end:
            raise NotReady(
                Reason.SHUTTING_DOWN,
                "brokerd is shutting down.",
                hint="Open the stream again; another instance or the next start serves.",
            )

    def _check_room(self) -> None:
        """Raises Exhausted. Before anything is done for who asks: it is what a flood costs."""
        if self._at_most is not None and self._in_hand > self._at_most:
            raise Exhausted(
                Reason.TOO_MANY_CONCURRENT_REQUESTS,
                f"{self._at_most} calls are in hand here, and no more are taken.",
                hint="Ask again in a moment. Operators: limits.max_concurrent_rpcs.",
                metadata={"limit": str(self._at_most)},
                retry_after=RETRY_AFTER,
            )

    async def _refuse(
        self,
        failure: BaseException,
        path: str,
        principal: str,
        counted: str,
        started: float,
        context: aio.ServicerContext[Any, Any],
        guest: Guest | None,
        request: Message | None,
    ) -> None:
        """Answer a failure; returns only for what is not an answer (cancellation, an abort under way).

        ``principal`` is who asked; ``counted`` is in whose budget the refusal is: all workloads of one registry
        entry share one, and so do all that were not let in. ``guest`` and ``request`` are as far as it came.
        """
        if isinstance(failure, aio.AbortError) or not isinstance(failure, Exception):
            self._done(path, principal, "CANCELLED", started)
            return
        if not isinstance(failure, BrokerError):
            request_id = self._rng.id()
            log.error("unexpected failure", method=path, request_id=request_id, exc_info=failure)
            failure = unexpected(request_id)
        failure = self._among.instead_of(failure)
        await self._record(failure, path, principal, counted)
        if guest is not None:
            await self._entrance.refused(guest, path, request, failure)
        self._done(path, principal, failure.reason, started)
        await context.abort_with_status(to_status(failure))

    async def _record(self, failure: BrokerError, path: str, principal: str, counted: str) -> None:
        """The refusal's own event, within its budget. Its failing changes no answer."""
        if isinstance(failure, NotReady) or failure.reason is Reason.TOO_MANY_CONCURRENT_REQUESTS:
            return  # about the broker, and not about who asked
        now = self._clock.now()
        # One budget for all that are denied, so that no flood of strangers hides them.
        whose = DENIED if failure.reason is Reason.AGENT_DENIED else counted
        _, alone = self._budget.admit(whose, failure.reason, now)
        if not alone:
            return
        metadata = {**failure.metadata, "status": status_code(failure).name}
        event = refusal(self._tenant, principal, path, failure.reason, failure.message, metadata, failure.evidence)
        try:
            await self._store.append([event], now)
        except BrokerError as lost:
            log.error("a refusal could not be recorded", method=path, principal=principal, reason=lost.reason)

    def _done(self, path: str, principal: str, outcome: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._measure.rpc(path, outcome, seconds)
        log.info("rpc", method=path, principal=principal, outcome=outcome, ms=round(seconds * 1000, 2))


def _parser(method: MethodDescriptor) -> Callable[[bytes], Message]:
    message_class = GetMessageClass(method.input_type)

    def parse(raw: bytes) -> Message:
        if len(raw) > MAX_MESSAGE_BYTES:
            raise InvalidInput(
                Reason.MESSAGE_TOO_LARGE,
                f"the request has {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are read.",
                hint="Shorten prompt, tool call or plan; their digests are what is kept.",
                metadata={"bytes": str(len(raw)), "limit": str(MAX_MESSAGE_BYTES)},
            )
        try:
            message: Message = message_class.FromString(raw)
        except DecodeError:
            raise InvalidInput(
                Reason.MESSAGE_MALFORMED,
                f"the request is not a {method.input_type.full_name}.",
                hint="Use the client generated from the published protos.",
            ) from None
        check_no_secrets(message)
        violations = protovalidate.collect_violations(message)
        if violations:
            raise _violated(violations)
        return message

    return parse


def _violated(violations: list[Any]) -> InvalidInput:
    found = [violation.proto for violation in violations]
    fields = [".".join(part.field_name for part in each.field.elements) for each in found]
    told = "; ".join(f"{name}: {each.message}" for name, each in zip(fields, found, strict=True))
    return InvalidInput(
        Reason.FIELD_INVALID,
        f"the request is not valid: {told}.",
        hint="The limits of each field stand in the published protos, protos/broker/api/v1.",
        metadata={"fields": ",".join(fields)},
    )
