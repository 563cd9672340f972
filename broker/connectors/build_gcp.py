"""The connectors of Google Cloud, from their settings."""

from __future__ import annotations

from collections.abc import Callable

from broker.connectors.gcp_base import Federation
from broker.connectors.gcp_pool import GcpPool, Pool
from broker.connectors.gcp_token import GcpTokens
from broker.connectors.gcp_upstream import GcpSettings
from broker.connectors.settings import Settings
from broker.ports.clock import Clock
from broker.ports.connectors import Connector
from broker.secret import Secret


def _gcp_token(settings: Settings, clock: Clock) -> Connector:
    accounts = frozenset(settings.texts("service_accounts"))
    return GcpTokens(settings.connector, _gcp(settings), accounts, settings.own, clock)


def _gcp_pool(settings: Settings, clock: Clock) -> Connector:
    project, stated = settings.text("project"), settings.inner("pools")
    pools = {name: _pool(stated.inner(name), project) for name in stated.names()}
    return GcpPool(settings.connector, _gcp(settings), pools, settings.lending, settings.own, clock)


def _pool(stated: Settings, project: str) -> Pool:
    return Pool(stated.text("prefix"), stated.number("size"), project, stated.texts("buckets"))


def _gcp(settings: Settings) -> GcpSettings:
    credentials = settings.inner("credentials")
    source: Federation | Callable[[], Secret]
    if credentials.has("federation"):
        federation = credentials.inner("federation")
        source = Federation(federation.text("audience"), federation.maybe_text("token_audience"))
    else:
        source = credentials.secret("key")
    return GcpSettings(source, settings.maybe_text("endpoint_url"), settings.maybe_text("canary_bucket"))


KINDS = {
    "gcp-token": _gcp_token,
    "gcp-pool": _gcp_pool,
}
