"""How a daemon stands among the others on its ledger: was it heard, and has it the deploy set that is in force?

Belongs here: when it must not grant for that, and what it may not refuse for good. Told by its own beats; a pure
question. A daemon whose ledger is its own has none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from broker.errors import BrokerError, NotReady, Reason
from broker.ports.replicas import REPLICA_DEAD_AFTER, DeployInForce

# A set in force elsewhere is followed so soon, or nothing is granted until it is.
FOLLOW_WITHIN = timedelta(seconds=30)
# Refused for want of what the set in force may have, or for having been agreed to under that set.
_OF_ANOTHER_SET = frozenset(
    {
        Reason.AGENT_NOT_REGISTERED,
        Reason.AUTOMATION_UNKNOWN,
        Reason.PERSON_UNKNOWN,
        Reason.TEMPLATE_NOT_FOUND,
        Reason.APPROVAL_TEMPLATE_CHANGED,
        Reason.APPROVAL_POLICY_CHANGED,
        Reason.APPROVAL_NOT_HELD,
    }
)


@dataclass(slots=True)
class Among:
    """Of one daemon. Figures are set by its beats."""

    follow_within: timedelta = FOLLOW_WITHIN
    heard_at: datetime | None = None  # when the ledger last took a beat; None: nobody shares it
    mine: str = ""  # digest of the deploy set that this daemon has
    in_force: DeployInForce | None = None  # that came into force last, on whichever

    @property
    def overtaken(self) -> bool:
        """Whether another deploy set than this daemon's is in force."""
        return self.in_force is not None and self.in_force.digest != self.mine

    def why_closed(self, now: datetime) -> NotReady | None:
        """The reason not to grant at ``now``, or None."""
        if self.heard_at is not None and now - self.heard_at > REPLICA_DEAD_AFTER:
            return NotReady(
                Reason.REPLICA_UNHEARD,
                f"this replica could not tell the ledger that it lives since {self.heard_at.isoformat()}.",
                hint="Ask another one; operators: see the log of brokerd, and whether it reaches its database.",
                metadata={"since": self.heard_at.isoformat()},
            )
        return self.why_overtaken(now)

    def why_overtaken(self, now: datetime) -> NotReady | None:
        """The reason not to decide at ``now`` by the set that this daemon has, or None."""
        in_force = self.in_force
        if in_force is None or not self.overtaken or now - in_force.since <= self.follow_within:
            return None
        return self._behind(in_force)

    def instead_of(self, refusal: BrokerError) -> BrokerError:
        """``refusal``, unless only an older set refuses it: to who asks it would be final, and others may grant it."""
        if self.in_force is None or not self.overtaken or refusal.reason not in _OF_ANOTHER_SET:
            return refusal
        return self._behind(self.in_force)

    def _behind(self, in_force: DeployInForce) -> NotReady:
        return NotReady(
            Reason.DEPLOY_SET_OVERTAKEN,
            f"since {in_force.since.isoformat()} the deploy set in force is sha256:{in_force.digest}, and this replica"
            f" has sha256:{self.mine}.",
            hint="Ask another one; operators: give this replica the set in force. It takes it in by itself.",
            metadata={"inForce": in_force.digest, "mine": self.mine},
        )
