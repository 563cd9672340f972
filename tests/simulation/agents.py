"""What agents and people do all day: ask, lose patience, ask again, forget to confirm, give back, never come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any

from broker.approval.intent_digest import APPROVE_ACCESS_REQUEST, nonce_of
from broker.dev.identity_provider import CLIENT_ID
from broker.errors import BrokerError, Defect
from broker.identity.agent import Agent
from broker.issuance.issue import Grant
from broker.issuance.suspending import SuspensionOrder
from broker.issuance.tasks import TaskOrder
from broker.ports import FiledRequest, Lease, Task
from broker.scope.request import AccessRequest
from broker.suspension.suspension import Kind
from tests.simulation.broker import SimulatedBroker
from tests.simulation.world import AGENTS, Gone, World

Work = Callable[[SimulatedBroker], Coroutine[Any, Any, Any]]
APPROVERS = ("bea", "cyd")


class Life:
    """One agent's. ``going`` False: what it began it ends, and begins nothing more."""

    def __init__(self, world: World, who: Agent) -> None:
        self._world = world
        self._chance = world.chance
        self._who = who

    async def live(self, going: Callable[[], bool]) -> None:
        while going():
            await asyncio.sleep(self._chance.between(0, 5))
            await self._task()

    # ------------------------------------------------------------------ one task

    async def _task(self) -> None:
        order = TaskOrder(
            self._chance.id(), "testing", timedelta(seconds=int(self._chance.between(5, 300))), [], "", ""
        )
        task = await self._rpc("StartTask", lambda broker: broker.tasks.start(self._world.caller(self._who), order))
        if not isinstance(task, Task):
            return
        errands = int(self._chance.between(1, 5))
        if self._chance.often(0.5):
            work = [self._errand(task) for _ in range(errands)]
            if self._chance.sometimes("completed while asking", 0.3):
                work.append(self._complete_meanwhile(task))
            await asyncio.gather(*work)
        else:
            for _ in range(errands):
                await self._errand(task)
        if self._chance.often(0.7):  # else its deadline ends it
            await self._rpc("CompleteTask", lambda broker: self._complete(broker, task))

    async def _complete_meanwhile(self, task: Task) -> None:
        await asyncio.sleep(self._chance.between(0, 0.2))
        await self._rpc("CompleteTask", lambda broker: self._complete(broker, task))

    def _complete(self, broker: SimulatedBroker, task: Task) -> Coroutine[Any, Any, Any]:
        wait = timedelta(seconds=self._chance.between(0, 5))
        return broker.tasks.complete(self._world.caller(self._who), task.id, wait)

    async def _errand(self, task: Task) -> None:
        request = AccessRequest(
            request_id=self._chance.id(),
            template=self._chance.one_of("orders-read", "orders-read", "reports-read"),
            task_id=task.id,
            account=self._chance.one_of("dev", "dev", "dev", "prod"),
            environment="dev",
            resource="orders",
            ttl=timedelta(seconds=int(self._chance.between(2, 120))),
        )
        for _ in range(3):
            answer = await self._request(request)
            if isinstance(answer, Grant) and answer.access_request is not None:
                answer = await self._after_approval(answer.access_request)
            if isinstance(answer, Grant) and answer.lease is not None:
                await self._use(answer.lease)
                if not self._chance.sometimes("asked again for what was given", 0.1):
                    return
            await asyncio.sleep(self._chance.between(0, 3))

    async def _request(self, request: AccessRequest) -> Any:
        def ask(broker: SimulatedBroker) -> Coroutine[Any, Any, Any]:
            return broker.issuer.request(self._world.caller(self._who), request)

        if self._chance.sometimes("asked twice at once", 0.03):
            first, _ = await asyncio.gather(self._rpc("RequestCredential", ask), self._rpc("RequestCredential", ask))
            return first
        return await self._rpc("RequestCredential", ask, patience=self._patience())

    async def _use(self, lease: Lease) -> None:
        def confirm(broker: SimulatedBroker) -> Coroutine[Any, Any, Any]:
            return broker.leases.confirm(self._world.caller(self._who), lease.id, lease.attempt_id)

        def give_back(broker: SimulatedBroker) -> Coroutine[Any, Any, Any]:
            return broker.leases.revoke(self._world.caller(self._who), lease.id, timedelta(seconds=1))

        if not self._chance.sometimes("delivery never confirmed", 0.1):
            await self._rpc("ConfirmDelivery", confirm)
        await asyncio.sleep(self._chance.between(0, 60))
        if self._chance.often(0.4):
            await self._rpc("RevokeLease", give_back)

    # ------------------------------------------------------------------ people say yes

    async def _after_approval(self, filed: FiledRequest) -> Any:
        await asyncio.sleep(self._chance.between(0, 20))
        key = self._chance.one_of(*APPROVERS)
        await self._rpc("ApproveAccessRequest", lambda broker: self._approve(broker, filed, key))

        def redeem(name: str) -> Work:
            return lambda broker: broker.issuer.redeem(self._world.caller(self._who), filed.id, name)

        if self._chance.sometimes("redeemed twice at once", 0.2):
            first, _ = await asyncio.gather(
                self._rpc("RedeemAccessRequest", redeem("one")), self._rpc("RedeemAccessRequest", redeem("other"))
            )
            return first
        return await self._rpc("RedeemAccessRequest", redeem("one"), patience=self._patience())

    def _approve(self, broker: SimulatedBroker, filed: FiledRequest, key: str) -> Coroutine[Any, Any, Any]:
        nonce = nonce_of(APPROVE_ACCESS_REQUEST, {"access_request_id": filed.id, "digest": filed.digest})
        token = self._world.provider.id_token(key, CLIENT_ID, nonce)
        return broker.approvals.approve(self._world.person(key), filed.id, filed.digest, fresh_id_token=token)

    # ------------------------------------------------------------------ calling

    def _patience(self) -> float | None:
        return self._chance.between(0, 0.3) if self._chance.sometimes("caller gave up", 0.08) else None

    async def _rpc(self, name: str, work: Work, patience: float | None = None) -> Any:
        """The answer, or None: refused, given up, or the broker is gone."""
        broker = self._world.any_broker()
        if broker is None:
            await asyncio.sleep(0.5)
            return None
        try:
            async with asyncio.timeout(patience):
                answer = await self._world.ask(work(broker), broker)
        except Gone:
            self._world.tell(name, "gone")
            return None
        except TimeoutError:
            self._world.tell(name, "given up")
            return None
        except Defect:
            raise
        except BrokerError as refused:
            self._world.chance.told[f"refused: {refused.reason}"] += 1
            self._world.tell(name, refused.reason)
            return None
        self._world.tell(name, "OK")
        if isinstance(answer, Grant) and answer.credential is not None and answer.lease is not None:
            self._world.chance.told["delivered"] += 1
            self._world.checks.delivered(answer.lease.attempt_id)
        return answer


async def people(world: World, going: Callable[[], bool]) -> None:
    """Operators, who stop something now and then, for a while."""
    chance = world.chance
    while going():
        await asyncio.sleep(chance.between(10, 120))
        broker = world.any_broker()
        if broker is None or not going():
            continue
        everything = chance.sometimes("everything suspended", 0.3)
        value = "" if everything else chance.one_of(*(str(each.spiffe_id) for each in AGENTS))
        chance.told["suspended"] += 1
        lasts = timedelta(seconds=int(chance.between(1, 30)))
        order = SuspensionOrder(chance.id(), Kind.EVERYTHING if everything else Kind.AGENT, value, "drill", lasts)
        with contextlib.suppress(Gone, BrokerError):
            await world.ask(broker.suspensions.suspend(world.person("cyd"), order), broker)
