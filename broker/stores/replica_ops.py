"""Several daemons on one ledger, each operation inside one write transaction.

Signs of life, jobs of one at a time, the newest deploy set. Nothing that may be granted or must be ended depends on who
lives or who has a job: both are told by times, and a replica that was stopped for a while believes of itself what was
true before. They decide only how soon something happens, and how often in vain. What must be right is right by epochs,
by compare-and-swap, and by what each transaction reads.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from broker.errors import NotReady, Reason
from broker.ports.replicas import REPLICA_DEAD_AFTER, REPLICA_PAUSE, DeployInForce, Heartbeat, Pulse
from broker.scope.canonical import canonical_json
from broker.stores import high_water_ops, recovery_ops
from broker.stores.seal import tampered
from broker.stores.times import from_ms, span_ms, to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import Raw, View

# Rows of the dead are kept for so long, for whoever looks at the table.
REMEMBERED = timedelta(hours=1)
# Sets that were in force once, per tenant. One that is forgotten would pass for a new one.
SETS_KEPT = 1_000
_TABLE = "deploy_sets"
_NEWEST = "newest_deploy_set"


def beat(tx: Transaction, said: Heartbeat, now: datetime) -> Pulse:
    """See ReplicaStore.beat."""
    now_ms = to_ms(now)
    last = now_ms - span_ms(REPLICA_PAUSE)
    told = {"writer": said.writer, "tenant": said.tenant, "now": now_ms, "last": last, "digest": said.digest}
    tx.write("heard_replica", told)
    tx.write("forget_replicas", {"long_ago": now_ms - span_ms(REMEMBERED)})
    row, in_force = recovery_ops.find(tx, said.tenant), _in_force(tx, _NEWEST, {"tenant": said.tenant})
    return Pulse(
        others=others(tx, said.writer, now),
        jobs=_take(tx, said, now_ms),
        in_force=in_force,
        recovery=row.id if row is not None and row.open else "",
        timeline=str(tx.row("ledger_timeline", ())[0]),
        dead=len(dead(tx, said.writer, now)),
        seen=high_water_ops.seen(tx),
        ahead=0 if in_force is None or in_force.digest == said.digest else _living_with(tx, said, in_force, now_ms),
    )


def others(view: View, writer: str, now: datetime) -> int:
    """How many replicas live beside ``writer``, whichever tenant's they are: connectors are everybody's."""
    now_ms, span = to_ms(now), span_ms(REPLICA_DEAD_AFTER)
    around = {"writer": writer, "after": now_ms - span, "before": now_ms + span}
    return int(view.row("living_replicas", around)[0])


def _living_with(view: View, said: Heartbeat, deploy: DeployInForce, now_ms: int) -> int:
    span = span_ms(REPLICA_DEAD_AFTER)
    whose = {"writer": said.writer, "tenant": said.tenant, "digest": deploy.digest}
    return int(view.row("living_replicas_with", {**whose, "after": now_ms - span, "before": now_ms + span})[0])


def alone(view: View, writer: str, now: datetime) -> bool:
    """Whether nobody else can be at work: for who starts, and would else take from others what they have in hand.

    ``now`` may be long over: whoever was stopped on its way here knows nothing of those that were heard since.
    """
    heard = {"writer": writer, "after": to_ms(now) - span_ms(REPLICA_DEAD_AFTER)}
    return not view.row("replicas_heard_after", heard)[0]


def dead(view: View, writer: str, now: datetime) -> list[str]:
    """Who is known to be dead by ``writer``, and was not forgotten yet. See ReplicaStore.inherit."""
    now_ms = to_ms(now)
    key = {
        "writer": writer,
        "now": now_ms,
        "last": now_ms - span_ms(REPLICA_PAUSE),
        "after": now_ms - span_ms(REPLICA_DEAD_AFTER),
    }
    return [found for (found,) in view.all("dead_replicas", key)]


def forget(tx: Transaction, writer: str) -> None:
    """Nothing is left of it that anybody waits for."""
    tx.run("forget_replica", {"writer": writer})


def leave(tx: Transaction, writer: str, now: datetime) -> None:
    """See ReplicaStore.leave."""
    forget(tx, writer)
    tx.run("give_jobs_up", {"writer": writer, "now": to_ms(now)})


def put_in_force(tx: Transaction, said: Heartbeat, now: datetime, *, deliberate: bool) -> DeployInForce:
    """See ReplicaStore.put_in_force."""
    key: dict[str, str] = {"tenant": said.tenant}
    newest = _in_force(tx, _NEWEST, key)
    if newest is not None and newest.digest == said.digest:
        return newest
    known = _in_force(tx, "deploy_set", {**key, "digest": said.digest}) is not None
    if newest is not None and known and not deliberate and not alone(tx, said.writer, now):
        return newest
    place, since = 1 if newest is None else newest.place + 1, to_ms(now)
    mac, key_id = tx.seal.make(_TABLE, (said.tenant, said.digest, place, since, said.writer))
    row = {**key, "digest": said.digest, "place": place, "since": since, "writer": said.writer}
    tx.run("put_deploy_set", {**row, "mac": mac, "mac_key_id": key_id})
    tx.run("forget_deploy_sets", {**key, "upto": place - SETS_KEPT})
    return DeployInForce(said.digest, place, from_ms(since))


def replaced(view: View, tenant: str, digest: str) -> bool:
    """Whether another deploy set than the one of this digest is in force. An empty one is nobody's word."""
    newest = _in_force(view, _NEWEST, {"tenant": tenant}) if digest else None
    return newest is not None and newest.digest != digest


def check_in_force(view: View, tenant: str, digest: str) -> None:
    """Raises NotReady (DEPLOY_SET_OVERTAKEN) where it is :func:`replaced`."""
    if replaced(view, tenant, digest):
        raise NotReady(
            Reason.DEPLOY_SET_OVERTAKEN,
            f"another deploy set than sha256:{digest} is in force.",
            hint="Ask a replica that has it.",
            metadata={"mine": digest},
        )


def _take(tx: Transaction, said: Heartbeat, now_ms: int) -> frozenset[str]:
    mine = {"tenant": said.tenant, "writer": said.writer, "names": canonical_json(sorted(said.jobs)).decode()}
    until = now_ms + span_ms(REPLICA_DEAD_AFTER)
    return frozenset(name for (name,) in tx.all("take_jobs", {**mine, "now": now_ms, "until": until}))


def _in_force(view: View, query: str, key: dict[str, str]) -> DeployInForce | None:
    raw: Raw | None = view.one(query, key)
    if raw is None:
        return None
    *values, mac, key_id = raw
    tenant, digest, place, since, _ = values
    if not view.seal.holds(_TABLE, values, mac, key_id):
        raise tampered(_TABLE, f"{tenant}/{digest}")
    return DeployInForce(digest, place, from_ms(since))
