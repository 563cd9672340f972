"""The deploy set of the grants measurement: the starter policies, 100 templates and 1,000 agents, as files.

brokerd reads it like any operator's. The one untruth is in ``connectors.yaml``: a kind must be a real
one, and what is built for it is ``noop.py``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from broker.dev.files import private_directory
from broker.identity.spiffe_id import SpiffeId

TRUST_DOMAIN = "bench.broker.internal"
AGENTS = 1_000
TEMPLATES = 100
CONNECTOR = "noop"
ACCOUNT = "shop"
ENVIRONMENT = "dev"
STARTER_POLICIES = Path(__file__).parent.parent / "deploy" / "dev" / "policies"

_PEOPLE = 20
# Of approvals.yaml. Everybody is in all of them.
GROUPS = ["data-platform", "release", "security"]
_TIERS = ("advisory", "semi-autonomous", "autonomous")


def agent_id(number: int) -> SpiffeId:
    """The SPIFFE ID of agent ``number``, from 0."""
    return SpiffeId(TRUST_DOMAIN, f"/agent/number-{number:04}")


def template_name(number: int) -> str:
    """The name of template ``number``, from 0."""
    return f"bench-{number:03}"


def write_deploy_set(directory: Path, *, agents: int = AGENTS, templates: int = TEMPLATES) -> None:
    """Write the whole set into ``directory``, which is made."""
    for part in ("agents", "templates", "policies"):
        private_directory(directory / part)
    for policy in STARTER_POLICIES.glob("*.cedar"):
        if policy.stem != "canaries":  # there are none here, nor the templates that those policies name
            shutil.copyfile(policy, directory / "policies" / policy.name)
    shutil.copyfile(STARTER_POLICIES.parent / "approvals.yaml", directory / "approvals.yaml")
    _write(directory / "people.yaml", {"people": {_person(n): _person_entry(n) for n in range(_PEOPLE)}})
    _write(directory / "connectors.yaml", {"connectors": {CONNECTOR: _connector()}})
    for number in range(templates):
        _write(directory / "templates" / f"{template_name(number)}.yaml", _template(number))
    for environment in ("dev", "staging", "production"):
        _write(directory / "templates" / f"write-{environment}.yaml", _writing(environment))
    for number in range(agents):
        _write(directory / "agents" / f"number-{number:04}.yaml", _agent(number))
    for path in directory.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def _person(number: int) -> str:
    return f"person-{number % _PEOPLE:02}"


def _person_entry(number: int) -> dict[str, object]:
    name = _person(number)
    return {"issuer": "https://id.bench.broker.internal", "subject": name, "display_name": name, "groups": list(GROUPS)}


def _agent(number: int) -> dict[str, object]:
    return {
        "spiffe_id": str(agent_id(number)),
        "description": f"Agent number {number} of the benchmark.",
        "owner": _person(number),
        "tier": _TIERS[number % len(_TIERS)],
        "roles": ["analyst"],
        "environments": [ENVIRONMENT, "staging"],
        # The most that can be written: the measurement gives out leases faster than an agent uses them up.
        "quotas": {"live_leases": 10_000, "open_tasks": 100},
    }


def _template(number: int) -> dict[str, object]:
    return {
        "name": template_name(number),
        "description": f"Reads one shard of one day of dataset {number}.",
        "connector": CONNECTOR,
        "accounts": [ACCOUNT],
        "environments": [ENVIRONMENT, "staging"],
        "resource": {"type": "enum", "values": [f"dataset-{number:03}"]},
        "access": "read",
        "sensitivity": "internal",
        "actions": ["select"],
        "max_ttl": "15m",
        "requires": ["intent"],
        "parameters": {
            "day": {
                "type": "regex",
                "pattern": r"^20[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$",
                "max_length": 10,
            },
            "shard": {"type": "integer", "minimum": 0, "maximum": 63},
        },
        "grant": {"role": f"role-{number:03}"},
    }


def _writing(environment: str) -> dict[str, object]:
    """Nobody asks for it; the starter policies name what it grants."""
    return {**_template(0), "name": f"write-{environment}", "access": "write", "environments": [environment]}


def _connector() -> dict[str, object]:
    login = {"engine": "postgresql", "host": "127.0.0.1", "port": 5432, "database": "none"}
    settings = {"address": "http://127.0.0.1:8200", "token": "env:BENCH_UNUSED", "login": login}
    return {"kind": "vault-database", "settings": settings}
