"""Ports: each is given to one server, also before that one listens."""

from __future__ import annotations

import pytest

from broker.dev import loopback
from broker.dev.loopback import free_port


def test_no_port_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = iter([7, 7, 7, 8])
    monkeypatch.setattr(loopback, "_given", set())
    monkeypatch.setattr(loopback, "_is_free", lambda port: True)
    monkeypatch.setattr("broker.dev.loopback.secrets.randbelow", lambda count: next(draws))
    assert [free_port(), free_port()] == [loopback._FIRST + 7, loopback._FIRST + 8]
