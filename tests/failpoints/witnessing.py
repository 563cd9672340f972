"""Checkpoints, signed and carried to a witness: in order, none missing, none of another trail, and no false alarm."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from broker.audit.event import AuditEvent, EventType, Vouch
from broker.audit.offline import Audit
from broker.audit.witnessed import Witnessed
from broker.clock import SystemRng
from broker.config import Checkpoints
from broker.daemon.turns import Turns
from broker.daemon.witnessing import Witnessing
from broker.errors import Defect, Reason
from broker.issuance.recovering import Recovering
from broker.references import resolve
from broker.witnesses.signing import CheckpointKeys
from tests.failpoints.errand import Daemon, Errand
from tests.failpoints.points import Armed, Fault, Points
from tests.failpoints.ports import Pointed
from tests.failpoints.witness_kinds import Kind, S3Server, witness_of
from tests.issuance.world import TENANT
from tests.simulation.process import Dead, Process
from tests.witnesses.fake import signing_key

_EVERY = timedelta(minutes=1)
_HAPPENINGS = 2


class PointedKeys:
    """Signing is no call that waits: there, a process hangs as a whole."""

    def __init__(self, keys: CheckpointKeys, points: Points, process: Process) -> None:
        self._keys = keys
        self._points = points
        self._process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self._keys, name)

    def sign(self, text: str, name: str) -> str:
        call = self._points.numbered("call sign")
        self._pass(f"{call} before")
        signed = self._keys.sign(text, name)
        self._pass(f"{call} after")
        return signed

    def _pass(self, point: str) -> None:
        match self._points.meet(point):
            case Fault.CRASH:
                raise Dead
            case Fault.ERROR:
                raise Defect(Reason.INTERNAL, "the key cannot be used.")
            case Fault.HANG:
                self._process.stop()


class Witnesses(Errand):
    """Something happens, and is witnessed, a few times; then the broker stops as at SIGTERM."""

    patience = _EVERY
    differing: ClassVar[Mapping[str, int]] = {"add_checkpoint": 2, "witnessed": 2}  # the first one follows none

    def __init__(
        self, directory: Path, armed: Armed | None, impatient: float, kind: str = "file", s3: S3Server | None = None
    ) -> None:
        super().__init__(directory, armed, impatient)
        self.kind = kind
        self._s3 = s3
        self.witness: Kind
        self._adapter: Any = None  # of the process that is running

    async def tell(self) -> None:
        """See Errand."""
        async with witness_of(self.kind, self.directory, self._s3) as self.witness:
            await super().tell()

    async def let_go(self, daemon: Daemon) -> None:
        """See Errand."""
        if self._adapter is not None:
            await self._adapter.close()
        await self.witness.let_go()

    async def prepare(self) -> None:
        """See Errand."""
        self.reference = signing_key(self.directory / "checkpoint.key")
        self.happened = 0
        await self.world.task(name="before")

    async def wake(self, daemon: Daemon) -> None:
        """See Errand."""
        config: Any = SimpleNamespace(tenant=TENANT, trust_domain="test")
        settings = Checkpoints.model_construct(
            signing_keys=(self.reference,),
            origin=None,
            every=_EVERY,
            every_records=10_000,
            witnesses={self.kind: self.witness.settings(daemon.ledger.points, daemon.process, self.timeout)},
        )
        clock, rng = self.world.clock, SystemRng()
        recovering = Recovering(daemon.store, daemon.gate, clock, rng, TENANT)
        turns = Turns(frozenset({"checkpoints"}), lambda: 0.0, shared=False)
        made = Witnessing(config, settings, daemon.store, recovering, daemon.gate, clock, rng, "w", turns)
        points, process = daemon.ledger.points, daemon.process
        pointed: Any = PointedKeys(made._checkpointer._keys, points, process)
        made._checkpointer._keys = pointed
        witness = self._adapter = made._witnesses[self.kind]
        if self.witness.answers:
            witness = Pointed(witness, points, lambda: OSError("no route to host"))
        made._witnesses[self.kind] = made._pumps[self.kind]._witness = process.reach(witness)
        daemon.own = made
        await made.start()

    async def turn(self, daemon: Daemon) -> None:
        """See Errand."""
        made: Witnessing = daemon.own
        self.happened += 1
        event = AuditEvent(EventType.DAEMON_STARTED, "broker", Vouch.BROKER, TENANT, data={"n": self.happened})
        await daemon.store.append([event], self.world.clock.now())
        await made.ask_unread()
        await made.tick()
        (pump,) = made._pumps.values()
        if not await pump.step():
            raise OSError("it is tried again later")
        if self.happened >= _HAPPENINGS:
            await made.finish()

    async def done(self, daemon: Daemon) -> bool:
        """See Errand."""
        newest = self.ask("SELECT max(seq) FROM audit_checkpoints")
        sent = self.ask("SELECT max(upto) FROM witness_positions")
        last = self.ask("SELECT max(seq) FROM audit")  # where a witness could not be asked, nothing was signed
        return self.happened >= _HAPPENINGS and newest == sent == last and not daemon.gate.unread

    async def check(self) -> None:
        """See Errand."""
        assert self.ask("SELECT count(*) FROM recoveries") == [(0,)], "no witness has seen what the ledger has not"
        keys = CheckpointKeys([self.reference], resolve).public
        sent = list(self.witness.notes())
        notes = list(dict.fromkeys(sent))
        assert notes == sent or (self.faulty and not self.witness.once), "each once"
        in_trail = [each.data["note"] for each in self.trail if each.type == EventType.AUDIT_CHECKPOINT]
        assert notes == in_trail, "the witness has each, in order"
        bodies = [row[0] for row in self.ask("SELECT body FROM audit ORDER BY seq")]
        audit = Audit(keys, [Witnessed(self.kind, notes, keys)], closed=True)
        assert list(audit.verify(bodies)) == [], "a fork, or a gap"
        assert audit.witnessed == audit.signed == audit.records - 1
