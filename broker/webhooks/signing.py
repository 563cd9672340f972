"""Signing what is sent, by the Standard Webhooks specification (symmetric: HMAC-SHA256).

A secret is ``whsec_`` and base64 of 24 to 64 random bytes. With several, each signs: the receiver may hold either
while one is exchanged for the other.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import datetime

from standardwebhooks import Webhook

from broker.errors import InvalidInput, Reason
from broker.secret import Secret

_PREFIX = "whsec_"
_BYTES = range(24, 65)


def check_secret(secret: Secret, reference: str) -> None:
    """Raises :class:`InvalidInput` (CONFIG_INVALID) for what is no signing secret; it is never quoted."""
    _key(secret, reference)


def headers(secrets: Sequence[tuple[str, Secret]], event_id: str, body: bytes, now: datetime) -> dict[str, str]:
    """The three headers of a webhook. ``secrets`` come with what refers to them; ``now`` is when it is sent."""
    text = body.decode()
    signatures = [Webhook(_key(secret, reference)).sign(event_id, now, text) for reference, secret in secrets]
    return {
        "webhook-id": event_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


def _key(secret: Secret, reference: str) -> bytes:
    text = secret.reveal()
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(_PREFIX) or len(key) not in _BYTES:
        raise InvalidInput(
            Reason.CONFIG_INVALID,
            f"{reference} is no webhook secret.",
            hint='Write whsec_ and base64 of 24 to 64 random bytes: echo "whsec_$(openssl rand -base64 32)".',
            metadata={"reference": reference},
        )
    return key
