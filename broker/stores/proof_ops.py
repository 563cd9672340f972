"""Fresh logins, each the record of the act it was for: written with it, in its transaction, and never changed.

The signed token is kept whole, so that whoever doubts an approval later can check the provider's signature. Each is
there once, which is what makes it single use.
"""

from __future__ import annotations

from broker.errors import Denied, Reason
from broker.ports import ProofRecord
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction

TABLE = "fresh_logins"


def keep_proof(tx: Transaction, tenant: str, record: ProofRecord, now_ms: int) -> None:
    """Keep it. Raises Denied (FRESH_LOGIN_USED) for one that is there already, which refuses the act."""
    token = record.proof.id_token
    if tx.row("fresh_login_used", {"tenant": tenant, "digest": token.digest})[0]:
        raise Denied(
            Reason.FRESH_LOGIN_USED,
            "This fresh login was used already; each is for one act.",
            hint="Log in once more.",
            metadata={"action": record.action},
        )
    values = (
        tenant,
        token.digest,
        token.issuer,
        token.subject,
        record.action,
        record.about,
        token.nonce,
        None if token.auth_time is None else to_ms(token.auth_time),
        now_ms,
        record.proof.raw.reveal(),
    )
    tx.run("insert_fresh_login", (*values, *tx.seal.make(TABLE, values)))
