"""A real brokerd as a process, on SPIRE's identities: its configuration, its deploy set, and what it wrote.

Belongs here: what an operator of brokerd does. Configurations differ between stories in single sections, which
the story passes; everything else is the same.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from broker.audit.event import EventType
from broker.dev.brokerd import BrokerdProcess
from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.keys import new_key
from tests.patience import PATIENCE

TRUST_DOMAIN, PARTNER = "prod.example.org", "partner.example.com"
# What the SDK demands of the broker's certificate unless told otherwise.
SERVER_NAME = "brokerd"
_DEPLOY = Path(__file__).with_name("deploy")


class Broker:
    """One brokerd with everything it writes in ``directory``; ``command`` runs it."""

    def __init__(self, directory: Path, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._directory = private_directory(directory)
        self._environment = dict(environment)
        self._state = private_directory(directory / "state")
        self.deploy = directory / "deploy"
        self.config = directory / "brokerd.yaml"
        self.agents_port, self._operations_port = free_port(), free_port()
        self._key = directory / "ledger.key"
        write_private(self._key, new_key())
        _copy_private(_DEPLOY, self.deploy)
        self._process = BrokerdProcess(directory, self.config, self._operations_port, command)

    @property
    def address(self) -> str:
        """What goes into BROKER_ADDRESS."""
        return f"{LOOPBACK}:{self.agents_port}"

    @property
    def operations(self) -> str:
        """Where /readyz and /metrics are."""
        return f"{LOOPBACK}:{self._operations_port}"

    def configure(self, identity: Mapping[str, Any], **sections: Any) -> None:
        """Write ``brokerd.yaml``; in force at the next start. ``sections`` are further ones, by name."""
        document = {
            "tenant": "acme",
            "trust_domain": TRUST_DOMAIN,
            "listen": {
                "agents": self.address,
                "operations": self.operations,
                **sections.pop("listen", {}),
            },
            "identity": dict(identity),
            "deploy": {"directory": str(self.deploy)},
            "state": {"directory": str(self._state)},
            "keys": {"ledger": [f"file:{self._key}"]},
            **sections,
        }
        write_private(self.config, yaml.safe_dump(document, sort_keys=False))

    def start(self) -> None:
        """Returns when it is ready."""
        self._process.start(self._environment)

    def stop(self) -> None:
        """With its drain. Twice is the same as once."""
        self._process.stop()

    # ------------------------------------------------------------------ what operators do

    def reload(self) -> None:
        """``broker reload``: the deploy set as it is now comes into force."""
        self._operator("reload", "--config", str(self.config))

    def metrics(self) -> str:
        """What ``/metrics`` says."""
        with urllib.request.urlopen(f"http://{self.operations}/metrics", timeout=PATIENCE) as answer:
            text: str = answer.read().decode()
        return text

    def audit(self, kind: EventType) -> list[dict[str, Any]]:
        """The records of one type in its audit trail, the oldest first."""
        told = self._operator(
            "audit", "show", "--database", str(self._state / "ledger.sqlite3"), "--type", kind, "--format", "json"
        )
        return [json.loads(line) for line in told.splitlines()]

    def _operator(self, *words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "broker.cli", *words],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env={**self._environment, "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def _copy_private(source: Path, target: Path) -> None:
    """brokerd refuses files that others may write, and a clone under umask 002 is full of them."""
    shutil.copytree(source, target)
    for path in (target, *target.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
