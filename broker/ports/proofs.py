"""A fresh login, kept with what it was for."""

from __future__ import annotations

from dataclasses import dataclass

from broker.identity.fresh_proof import FreshProof


@dataclass(frozen=True, slots=True)
class ProofRecord:
    """A fresh login, kept as the record of the act it was for: in the same transaction, and once."""

    proof: FreshProof
    action: str  # of broker/approval/intent_digest.py
    about: str  # the id of what it was for

    @property
    def digest(self) -> str:
        """Names the login: SHA-256 (hex) of what the provider signed."""
        return self.proof.id_token.digest
