"""Putting a deploy set in force: at start, on SIGHUP, and when its directory was swapped.

A set is taken whole or not at all. A bad one changes nothing; why is written to the log, to the
audit trail and to ``reload.json`` in the state directory, where ``broker reload`` reads it.

Of several replicas each has a directory of its own, so the ledger keeps which set came into force last. One that has
another set ends nothing in its name: who is not registered there may be registered in the newer one.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import structlog

from broker.audit.event import BROKER, AuditEvent, EventType, Vouch
from broker.daemon.pool import ConnectorPool
from broker.deployfiles.signed import overtaken
from broker.deployfiles.source import DeployFiles
from broker.errors import BrokerError, Defect, Reason
from broker.files import Problems
from broker.identity.behalf import is_enabled
from broker.issuance.among import Among
from broker.issuance.holders import may_hold
from broker.ports.clock import Clock
from broker.ports.deploys import DeploySet, Reloaded, Signed
from broker.ports.ledger import Ledger
from broker.ports.replicas import Heartbeat
from broker.scope.canonical import JsonValue

log = structlog.get_logger("broker.deploy")

# Denials written into one audit event; the others are in the set that its digest names.
MAX_TOLD = 50
# Problems told of one set: of tens of thousands (a tree that was unpacked into agents/) no answer could be sent.
MAX_PROBLEMS = 200


class Reloader:
    """Reloads the deploy set and makes the rest of the daemon follow it."""

    def __init__(
        self,
        files: DeployFiles,
        pool: ConnectorPool,
        store: Ledger,
        clock: Clock,
        tenant: str,
        result: Path,
        among: Among,
        writer: str,
    ) -> None:
        self._among = among
        self._writer = writer
        self._files = files
        self._pool = pool
        self._store = store
        self._clock = clock
        self._tenant = tenant
        self._result = result
        self._generation = 0
        self._begun = time.monotonic()
        # Told of each set that comes into force, the first one included. It returns at once.
        self.on_change: Callable[[], None] = lambda: None
        # One after the other: of two sets the later one stays.
        self._reloading = asyncio.Lock()

    async def first(self) -> None:
        """At start: the set was loaded already; run its connectors. Raises where it cannot be served."""
        deploy = self._files.current
        prepared = self._pool.prepare(deploy.connectors, await self._store.connectors_in_use())
        try:
            await self._accept(deploy, BROKER)
        except Problems as refused:
            await self._record(EventType.DEPLOY_REFUSED, {"problems": [str(each) for each in refused.problems]})
            raise
        await self._pool.activate(prepared)
        await self._in_force(deploy)

    async def reload(self) -> bool:
        """Take in what is on disk now; whether it is in force. Never raises for a bad set."""
        return (await self.take_in()).accepted

    async def take_in(self, actor: str = BROKER) -> Reloaded:
        """The same, and what came of it. ``actor``: who asked, where somebody did, as the trail names them."""
        async with self._reloading:
            return await self._reload(actor)

    async def _reload(self, actor: str) -> Reloaded:
        before, self._begun = self._files.current, time.monotonic()
        try:
            # In a thread: a large set takes seconds to read, in which grants and revocations go on.
            candidate = await asyncio.to_thread(self._files.load)
            prepared = self._pool.prepare(candidate.connectors, await self._store.connectors_in_use())
            await self._accept(candidate, actor)
        except BrokerError as refused:
            return await self._refused(refused, actor)
        except Exception as bug:
            # What ends a reader of ours is no set to be served, and whoever changed it has to hear of it.
            log.exception("a deploy set could not be taken in")
            why = f"taking it in failed inside the broker ({type(bug).__name__}); its log says where."
            return await self._refused(Defect(Reason.INTERNAL, why), actor)
        await self._pool.activate(prepared)
        self._files.adopt(candidate)
        if candidate.digest == before.digest:
            log.info("deploy set unchanged", digest=candidate.digest)
        await self._in_force(candidate, actor)
        if (newer := self._among.in_force) is not None and self._among.overtaken:
            return Reloaded(False, candidate.digest, (_overtaken(candidate.digest, newer.digest),))
        return Reloaded(True, candidate.digest)

    async def if_swapped(self) -> None:
        """Reload where the deploy directory now resolves to another one (an atomic swap)."""
        if self._files.swapped():
            await self.reload()

    async def follow(self, digest: str) -> None:
        """Take in the set of that digest, in force elsewhere, if it is what is on disk. Of others nothing is told."""
        async with self._reloading:
            try:
                found = await asyncio.to_thread(self._files.digest_on_disk)
            except Problems as half_way:
                log.debug("the deploy directory is not to be read", problems=[str(each) for each in half_way.problems])
                return
            if found == digest:
                await self._reload(BROKER)

    async def end_unregistered(self) -> None:
        """End the leases of agents that are not registered (any more), and of people who are not there."""
        if self._among.overtaken:
            return
        deploy = self._files.current
        registered = may_hold(deploy, self._clock.now())
        ended = await self._store.end_unregistered(self._tenant, registered, self._clock.now(), by=deploy.digest)
        if ended:
            log.warning("leases of unregistered agents are being revoked", attempts=ended)

    async def end_denied(self) -> None:
        """End the leases of whom the set in force denies. Again and again: an intent may have been under way."""
        now = self._clock.now()
        denied = self._files.current.denied
        if not denied:
            return
        ended = await self._store.end_denied(
            self._tenant, lambda holder, serial: denied.denies_lease(holder, serial, now), now
        )
        if ended:
            log.warning("leases of denied agents are being revoked", attempts=ended)

    async def end_for_disabled(self) -> None:
        """End the leases of tasks that act for who is disabled, or not in people.yaml. Again and again, as above."""
        if self._among.overtaken:
            return
        deploy, now = self._files.current, self._clock.now()
        ended = await self._store.end_on_behalf_of(
            self._tenant, lambda human: is_enabled(human, deploy.people, now), now, by=deploy.digest
        )
        if ended:
            log.warning("leases of tasks for disabled people are being revoked", attempts=ended)

    async def _accept(self, deploy: DeploySet, actor: str) -> None:
        """Have a set remembered before it is in force. Raises Problems for a signed one that a newer one overtook.

        One that is not signed has no serial: where it was in force before and others have a newer one, it is taken in
        and grants nothing, unless a person asked for it. A signal, a swap or a start is no such wish: old copies start.
        """
        wanted = actor != BROKER
        if deploy.signed is not None:
            serial, now = deploy.signed.serial, self._clock.now()
            highest = await self._store.accept_deploy(self._tenant, serial, deploy.digest, now)
            if problem := overtaken(str(self._files.directory), deploy, highest):
                raise Problems([problem])
            wanted = True  # its serial says that it is the newest
        said = Heartbeat(self._writer, self._tenant, deploy.digest)
        self._among.in_force = await self._store.put_in_force(said, self._clock.now(), deliberate=wanted)
        self._among.mine = deploy.digest

    async def _in_force(self, deploy: DeploySet, actor: str = BROKER) -> None:
        if (newer := self._among.in_force) is not None and self._among.overtaken:
            log.error("an old deploy set was taken in: others have a newer one", mine=deploy.digest, newer=newer.digest)
            self._tell(ok=False, digest=deploy.digest, problems=[_overtaken(deploy.digest, newer.digest)])
            return
        denied = [str(denial) for denial in deploy.denied]
        signed = {} if deploy.signed is None else _told(deploy.signed)
        await self._record(
            EventType.DEPLOY_ACTIVATED,
            {
                "digest": deploy.digest,
                **signed,
                "policies": deploy.policies.digest,
                "denied": denied[:MAX_TOLD],
                "denied_count": len(denied),
            },
            actor,
        )
        await self._ready_for_quotas(deploy)
        for end in (self.end_unregistered, self.end_denied, self.end_for_disabled):
            try:
                await end()
            except BrokerError as failure:
                # The set is in force, and whoever loaded it has to hear of that; the ticks do this again in a moment.
                log.error("leases that end with this deploy set could not be ended yet", reason=failure.reason)
        self.on_change()
        self._tell(ok=True, digest=deploy.digest, problems=[])
        log.info(
            "deploy set in force",
            digest=deploy.digest,
            agents=len(deploy.registry),
            templates=len(deploy.templates),
            **signed,
        )

    async def _ready_for_quotas(self, deploy: DeploySet) -> None:
        kinds = frozenset(quota.per for quota in deploy.quotas if quota.live_leases is not None)
        try:
            await self._store.index_quotas(kinds)
        except BrokerError as failure:
            # They are counted all the same, only slower.
            log.error("quotas are counted without their index", reason=failure.reason)

    async def _refused(self, refused: BrokerError, actor: str) -> Reloaded:
        problems = self._lines(refused)
        log.error("deploy set refused; the last good one stays in force", problems=problems)
        await self._record(EventType.DEPLOY_REFUSED, {"problems": problems[:20]}, actor)
        digest = self._files.current.digest
        self._tell(ok=False, digest=digest, problems=problems)
        return Reloaded(False, digest, tuple(problems))

    def _lines(self, refused: BrokerError) -> list[str]:
        if not isinstance(refused, Problems):
            return [str(refused)]
        told = [str(each) for each in refused.problems[:MAX_PROBLEMS]]
        if more := len(refused.problems) - len(told):
            told.append(f"and {more} more: broker check {self._files.directory} tells them all")
        return told

    async def _record(self, type_: EventType, data: Mapping[str, JsonValue], actor: str = BROKER) -> None:
        event = AuditEvent(type_, actor=actor, vouched_by=Vouch.BROKER, tenant=self._tenant, data=data)
        try:
            await self._store.append([event], self._clock.now())
        except BrokerError as lost:
            log.error("a reload could not be recorded", reason=lost.reason)

    def _tell(self, *, ok: bool, digest: str, problems: list[str]) -> None:
        self._generation += 1
        told = {
            "generation": self._generation,
            "pid": os.getpid(),
            "begun": self._begun,  # by the running clock: who asked after that is not answered by this
            "ok": ok,
            "digest": digest,
            "problems": problems,
        }
        part = self._result.with_suffix(".part")
        try:
            part.write_text(json.dumps(told, indent=1) + "\n")
            part.replace(self._result)
        except OSError as failure:  # a full disk keeps nobody from revoking, nor a set from being in force
            log.error("what came of a reload cannot be written", file=str(self._result), error=str(failure))


def _overtaken(mine: str, newer: str) -> str:
    return (
        f"sha256:{mine} was in force before, and sha256:{newer} is now, on other replicas; to go back on purpose:"
        " broker reload, on one that has it"
    )


def _told(signed: Signed) -> dict[str, JsonValue]:
    """What the trail says of the signatures."""
    return {
        "author": signed.author,
        "serial": signed.serial,
        "signers": list(signed.signers),
        "keys": list(signed.keys),
    }
