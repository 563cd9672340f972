"""The connector of a PostgreSQL server, from its settings."""

from __future__ import annotations

from broker.connectors.postgresql import Postgresql
from broker.connectors.postgresql_session import PostgresqlSettings
from broker.connectors.settings import Settings
from broker.ports.clock import Clock
from broker.ports.connectors import Connector


def _postgresql(settings: Settings, clock: Clock) -> Connector:
    login = settings.inner("login")
    return Postgresql(
        settings.connector,
        PostgresqlSettings(
            host=login.text("host"),
            port=login.port("port"),
            database=login.text("database"),
            username=settings.text("username"),
            tls=settings.flag("tls", default=True),
            ca_file=settings.maybe_text("ca_file"),
            login_prefix=settings.text("login_prefix", "") if settings.has("login_prefix") else "",
        ),
        settings.secret("password"),
        clock,
    )


KINDS = {
    "postgresql": _postgresql,
}
