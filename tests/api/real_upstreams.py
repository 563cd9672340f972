"""The connectors of deploy/dev on real upstreams: brokerd is in this process, so OpenBao gives it a token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.clock import SystemClock
from broker.connectors.registry import build
from broker.ports.connectors import Connector
from broker.ports.deploys import ConnectorSpec
from broker.references import resolve
from tests.conftest import ConfiguredOpenBao


def set_environment(openbao: ConfiguredOpenBao, monkeypatch: pytest.MonkeyPatch) -> None:
    """What connectors.yaml of deploy/dev refers to. Nobody listens where AWS and MinIO would be."""
    target = openbao.database.target
    for name, value in {
        "OPENBAO_ADDR": openbao.facts.address,
        "OPENBAO_TOKEN": openbao.database.broker_token().reveal(),
        "POSTGRES_HOST": target.host,
        "POSTGRES_PORT": str(target.port),
        "POSTGRES_DATABASE": target.database,
        "AWS_ENDPOINT": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "unused",
        "AWS_SECRET_ACCESS_KEY": "unused",
        "MINIO_ENDPOINT": "http://127.0.0.1:9",
        "MINIO_USER": "unused",
        "MINIO_SECRET_KEY": "unused",
    }.items():
        monkeypatch.setenv(f"BROKER_DEV_{name}", value)


def real(spec: ConnectorSpec) -> Connector:
    """Without a Workload API there is no JWT-SVID to log in with: a token takes its place."""
    settings = dict(spec.settings)
    if settings.pop("jwt", None) is not None:
        settings["token"] = "env:BROKER_DEV_OPENBAO_TOKEN"
    return build(replace(spec, settings=settings), resolve, SystemClock())
