"""The connector of MinIO, from its settings."""

from __future__ import annotations

from broker.connectors.minio_sts import MinioSts, MinioStsSettings
from broker.connectors.settings import Settings
from broker.ports.clock import Clock
from broker.ports.connectors import Connector


def _minio_sts(settings: Settings, clock: Clock) -> Connector:
    return MinioSts(
        settings.connector,
        MinioStsSettings(
            endpoint_url=settings.text("endpoint_url"),
            nodes=settings.texts("nodes"),
            user=settings.text("user"),
            buckets=settings.texts("buckets"),
            canary_bucket=settings.maybe_text("canary_bucket"),
            region=settings.text("region", "us-east-1"),
            ca_file=settings.maybe_text("ca_file"),
        ),
        settings.secret("secret_key"),
        clock,
    )


KINDS = {
    "minio-sts": _minio_sts,
}
