"""Files of one brokerd that is to be killed: configuration, a small deploy set, its SVID and those of its agents."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from broker.clock import SystemClock
from broker.dev.broker_svid import BrokerSvidFiles
from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.trust_domain import TrustDomain
from broker.identity.spiffe_id import SpiffeId
from broker.keys import new_key
from tests.kill.engine import MOUNT, ROLES
from tests.kill.upstream import BROKER_TOKEN, TOKEN_ROLE

TRUST_DOMAIN = "kill.broker.internal"
SERVER_NAME = "broker.kill.broker.internal"
ACCOUNT, ENVIRONMENT, RESOURCE = "shop", "dev", "orders"
# Everything of an issue together; a sweep waits for twice as long, so it is what healing takes.
ISSUE_TIMEOUT = timedelta(seconds=2)
CONFIRM_WITHIN = timedelta(seconds=2)
_OWNER = "dana"
_ISSUER = "https://id.kill.broker.internal"
_POLICY = """@id("read") @reason("Reading is allowed here.")
permit (principal, action == Action::"read", resource)
when { principal.environments.contains(resource.environment) };
"""


class Setting:
    """Everything in ``directory``, which is made; ``upstream`` is the address of the upstream.

    ``brokers`` daemons have each a configuration of its own (``configs``), with ``changes`` of its sections: of the
    same deploy set, keys and trust domain, and with ports of its own.
    """

    def __init__(self, directory: Path, agents: int, brokers: int = 1) -> None:
        self.directory = private_directory(directory)
        self.ledger = directory / "state-0" / "ledger.sqlite3"
        self.deploy = directory / "deploy"
        self.key_file = directory / "ledger.key"
        self.api_ports = [free_port() for _ in range(brokers)]
        self.operations_ports = [free_port() for _ in range(brokers)]
        self._clock = SystemClock()
        self._domain = TrustDomain.load(TRUST_DOMAIN, directory / "trust-domain", self._clock.now())
        own, names, life = SpiffeId(TRUST_DOMAIN, "/broker"), (SERVER_NAME,), timedelta(hours=12)
        self._svid = BrokerSvidFiles(self._domain, own, names, directory / "broker-svid", self._clock, ttl=life)
        self._svid.write()
        self.bundle = self._svid.bundle
        write_private(self.key_file, new_key())
        self.agents = [self._agent(number) for number in range(agents)]

    def write(self, upstream: str, **changes: Any) -> list[Path]:
        """Deploy set and configurations, one for each broker."""
        for number in range(len(self.api_ports)):
            private_directory(self.directory / f"state-{number}")
        for part in ("agents", "templates", "policies"):
            private_directory(self.deploy / part)
        self._file("people.yaml", {"people": {_OWNER: {"issuer": _ISSUER, "subject": _OWNER, "display_name": _OWNER}}})
        self._file("connectors.yaml", {"connectors": {"orders": _connector(upstream)}})
        for role in ROLES:
            self._file(f"templates/{role}.yaml", _template(role))
        for number in range(len(self.agents)):
            self._file(f"agents/{_name(number)}.yaml", _agent(number))
        write_private(self.deploy / "policies" / "reading.cedar", _POLICY)
        return [self._config(number, changes) for number in range(len(self.api_ports))]

    def _config(self, number: int, changes: dict[str, Any]) -> Path:
        path = self.directory / f"brokerd-{number}.yaml"
        identity = {"certificate": str(self._svid.chain), "private_key": str(self._svid.key)}
        said = {
            "tenant": "kill",
            "trust_domain": TRUST_DOMAIN,
            "listen": {
                "agents": f"{LOOPBACK}:{self.api_ports[number]}",
                "operations": f"{LOOPBACK}:{self.operations_ports[number]}",
            },
            "identity": {**identity, "bundles": {TRUST_DOMAIN: str(self.bundle)}},
            "deploy": {"directory": str(self.deploy)},
            "state": {"directory": str(self.directory / f"state-{number}")},
            "keys": {"ledger": [f"file:{self.key_file}"]},
            "limits": {
                "issue_timeout": f"{ISSUE_TIMEOUT.total_seconds():g}s",
                "confirm_within": f"{CONFIRM_WITHIN.total_seconds():g}s",
                "drain_timeout": "5s",
            },
            "revocation": {"tick": "100ms"},
            "log": {"level": "warning", "format": "json"},
            **changes,
        }
        write_private(path, yaml.safe_dump(said))
        return path

    def _agent(self, number: int) -> tuple[str, str]:
        """(chain, key) of an agent's SVID, as files."""
        svid = self._domain.x509_svid(_agent_id(number), now=self._clock.now(), ttl=timedelta(hours=12))
        directory = private_directory(self.directory / "agents")
        chain, key = directory / f"{number}.pem", directory / f"{number}.key"
        write_private(chain, svid.certificate_pem.decode())
        write_private(key, svid.key_pem.decode())
        return str(chain), str(key)

    def _file(self, name: str, said: object) -> None:
        write_private(self.deploy / name, yaml.safe_dump(said, sort_keys=False))


def _name(number: int) -> str:
    return f"agent-{number:02}"


def _agent_id(number: int) -> SpiffeId:
    return SpiffeId(TRUST_DOMAIN, f"/agent/{_name(number)}")


def _agent(number: int) -> dict[str, object]:
    return {
        "spiffe_id": str(_agent_id(number)),
        "description": "Works while its broker is killed.",
        "owner": _OWNER,
        "tier": "autonomous",
        "roles": ["analyst"],
        "environments": [ENVIRONMENT],
        "quotas": {"live_leases": 1_000, "open_tasks": 1_000},
    }


def _template(role: str) -> dict[str, object]:
    return {
        "name": role,
        "description": f"A login of role {role}.",
        "connector": "orders",
        "accounts": [ACCOUNT],
        "environments": [ENVIRONMENT],
        "resource": {"type": "enum", "values": [RESOURCE]},
        "access": "read",
        "sensitivity": "internal",
        "actions": ["select"],
        "max_ttl": "1h",
        "grant": {"role": role},
    }


def _connector(upstream: str) -> dict[str, object]:
    login = {"engine": "postgresql", "host": LOOPBACK, "port": 5432, "database": "none"}
    settings = {"address": upstream, "token": "env:KILL_TOKEN", "mount": MOUNT, "login": login}
    return {"kind": "vault-database", "settings": settings}


# All that the daemon's environment has to hold.
ENVIRONMENT_OF_BROKERD = {"KILL_TOKEN": BROKER_TOKEN}
assert TOKEN_ROLE == "jit-attempt", "the connector's default, which this deploy set keeps"
