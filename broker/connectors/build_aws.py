"""The connector of AWS STS, from its settings."""

from __future__ import annotations

import secrets
from datetime import timedelta

from broker.connectors.aws_client import AwsKeys, Base, WebIdentity
from broker.connectors.aws_contract import AwsStsSettings, Revocation
from broker.connectors.aws_session_policy import Network
from broker.connectors.aws_sts import AwsSts
from broker.connectors.settings import Settings
from broker.ports.clock import Clock
from broker.ports.connectors import Connector


def _aws_sts(settings: Settings, clock: Clock) -> Connector:
    return AwsSts(
        settings.connector,
        AwsStsSettings(
            region=settings.text("region"),
            partition=settings.text("partition", "aws"),
            endpoint_url=settings.maybe_text("endpoint_url"),
            external_id=settings.maybe_text("external_id"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            canary_endpoint_url=settings.maybe_text("canary_endpoint_url"),
            revocation=_revocation(settings.inner("revocation"), clock) if settings.has("revocation") else None,
            network=_network(settings.inner("network")) if settings.has("network") else None,
            proves_identity=settings.flag("proves_identity"),
            examined_roles=settings.texts("examined_roles"),
        ),
        _base(settings),
        clock,
    )


def _base(settings: Settings) -> Base:
    """Whose credentials the broker asks STS with."""
    if settings.has("web_identity"):
        inner = settings.inner("web_identity")
        audience = inner.text("audience", "sts.amazonaws.com")
        return WebIdentity(inner.text("role_arn"), audience, "jit-broker", settings.own)
    if settings.has("access_key_id") or settings.has("secret_access_key"):
        return AwsKeys(settings.secret("access_key_id"), settings.secret("secret_access_key"))
    return None


def _revocation(settings: Settings, clock: Clock) -> Revocation:
    # A writer's own for ever: the time for people, the rest so that no two are the same.
    epoch = f"{clock.now():%Y%m%dT%H%M%SZ}{secrets.token_hex(6)}"
    return Revocation(
        epoch,
        propagation=settings.duration("propagation", timedelta(minutes=5)),
        role_name=settings.maybe_text("role_name"),
        endpoint_url=settings.maybe_text("endpoint_url"),
    )


def _network(settings: Settings) -> Network:
    return Network(settings.texts("source_ips"), settings.texts("source_vpces"))


KINDS = {
    "aws-sts": _aws_sts,
}
