"""Fresh logins, each the record of the act it was for: written with it, in its transaction, and never changed.

The signed token is kept whole, so that whoever doubts an approval later can check the provider's signature; concealed,
because until it expires it opens the people's door for looking. Each is there once, which is what makes it single use.
"""

from __future__ import annotations

from broker.errors import Denied, Reason
from broker.ports.leases import Forgetting
from broker.ports.proofs import ProofRecord
from broker.ports.suspensions import Lifting
from broker.scope.canonical import JsonValue
from broker.stores.seal import tampered
from broker.stores.times import to_ms
from broker.stores.transaction import Transaction
from broker.stores.view import View

TABLE = "fresh_logins"


def word_told(word: Lifting | Forgetting) -> dict[str, JsonValue]:
    """What the trail says of one person's word: why, and by which login."""
    return {"reason": word.reason, "fresh_login": None if word.proof is None else word.proof.digest}


def keep_word(tx: Transaction, word: Lifting | Forgetting) -> None:
    """Keep the login that a word was given by. Raises as :func:`keep_proof`."""
    keep_proof(tx, word.tenant, word.proof, to_ms(word.now))


def keep_proof(tx: Transaction, tenant: str, record: ProofRecord | None, now_ms: int) -> None:
    """Keep it, where there is one. Raises Denied (FRESH_LOGIN_USED) for one that was there, which refuses the act."""
    if record is None:
        return
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
        tx.seal.conceal(record.proof.raw.reveal(), TABLE, tenant, token.digest),
    )
    tx.run("insert_fresh_login", (*values, *tx.seal.make(TABLE, values)))


def kept_proofs(view: View, tenant: str, about: str) -> list[tuple[str, str, str]]:
    """See LeaseStore.fresh_logins. Raises Tampered (ROW_MAC_MISMATCH)."""
    found = []
    for *values, mac, key_id in view.all("fresh_logins_about", {"tenant": tenant, "about": about}):
        _, digest, issuer, subject, *_, concealed = values
        if not view.seal.holds(TABLE, tuple(values), mac, key_id):
            raise tampered(TABLE, digest)
        found.append((issuer, subject, view.seal.reveal(concealed, TABLE, tenant, digest)))
    return found
