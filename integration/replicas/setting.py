"""Files of several brokerd on one ledger: as of the one that is to be killed, each with its own way to the database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.identity.spiffe_id import SpiffeId
from tests.kill.setting import TRUST_DOMAIN, Setting

GUARD = SpiffeId(TRUST_DOMAIN, "/guard")


class ReplicaSetting(Setting):
    """``dsns``: each replica's way to the ledger."""

    def __init__(self, directory: Path, agents: int, dsns: Sequence[str]) -> None:
        super().__init__(directory, agents, len(dsns))
        self._dsns = dsns
        self.automation_ports = [free_port() for _ in dsns]

    def guard(self) -> tuple[bytes, bytes]:
        """(chain, key) of operators' automation, which may suspend."""
        svid = self._domain.x509_svid(GUARD, now=self._clock.now(), ttl=timedelta(hours=12))
        return svid.certificate_pem, svid.key_pem

    def _config(self, number: int, changes: dict[str, Any]) -> Path:
        dsn = private_directory(self.directory / "dsn") / f"{number}.dsn"
        write_private(dsn, self._dsns[number])
        listen = {
            "agents": f"{LOOPBACK}:{self.api_ports[number]}",
            "operations": f"{LOOPBACK}:{self.operations_ports[number]}",
            "automation": f"{LOOPBACK}:{self.automation_ports[number]}",
        }
        return super()._config(number, {"listen": listen, **ledger_at(dsn), **changes})

    def _file(self, name: str, said: object) -> None:
        if name == "people.yaml":
            assert isinstance(said, dict)
            (owner,) = said["people"]
            guard = {"spiffe_id": str(GUARD), "owner": owner, "roles": ["operator"], "description": "guard"}
            said = {**said, "automation": {"guard": guard}}
        super()._file(name, said)


def ledger_at(dsn: Path) -> dict[str, Any]:
    """The part of a configuration that says where the ledger is."""
    return {"ledger": {"dsn": f"file:{dsn}"}}
