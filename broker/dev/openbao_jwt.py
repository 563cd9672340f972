"""The way in for the broker at the development OpenBao: its own JWT-SVID, so that no token is kept anywhere.

What an operator does on a real OpenBao, with the keys of their trust domain (`jwks_url`, or the keys themselves as
here), the broker's own SPIFFE ID and an audience that no other service accepts.
"""

from __future__ import annotations

from broker.dev.openbao import OpenBaoFacts, answered
from broker.dev.openbao_database import BROKER_POLICY
from broker.dev.trust_domain import TrustDomain
from broker.identity.spiffe_id import SpiffeId

MOUNT = "jwt"
ROLE = "jit-broker"
AUDIENCE = "openbao.dev.broker.internal"
LOGIN_SECONDS = 3600


def configure_jwt(bao: OpenBaoFacts, domain: TrustDomain, broker: SpiffeId) -> None:
    """Let ``broker``, and nobody else, log in with a JWT-SVID of ``domain``; again if it is already there."""
    client = bao.root_client()
    if f"{MOUNT}/" not in answered("sys/auth", client.read("sys/auth"))["data"]:
        client.write_data(f"sys/auth/{MOUNT}", data={"type": "jwt"})
    client.write_data(f"auth/{MOUNT}/config", data={"jwt_validation_pubkeys": [domain.jwt_key_pem.decode()]})
    client.write_data(
        f"auth/{MOUNT}/role/{ROLE}",
        data={
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_subject": str(broker),
            "bound_audiences": [AUDIENCE],
            "token_policies": [BROKER_POLICY],
            "token_no_default_policy": True,
            "token_type": "service",
            # The broker logs in anew at half of it; nothing that it made ends with it.
            "token_ttl": LOGIN_SECONDS,
            "token_max_ttl": LOGIN_SECONDS,
        },
    )
