"""The brokerd that ``broker check`` checks a deploy set for: its trust domain, and whose signatures it needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from broker.config import Config, load_config
from broker.deployfiles import load
from broker.deployfiles.signed import overtaken
from broker.deployfiles.signers import Signers, signers_of
from broker.errors import BrokerError
from broker.files import Problems
from broker.ports.deploys import AcceptedDeploy, DeploySet
from broker.references import resolve
from broker.stores.audit_reader import AuditReader
from broker.stores.offline import Where
from broker.stores.postgres_connection import ServerAddress


@dataclass(frozen=True, slots=True)
class Signatures:
    """What is told of them, for people and for programs."""

    summary: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Brokerd:
    """``directories``: what it deploys. ``ledger``: where it remembers the newest signed set of ``tenant``."""

    trust_domain: str = ""
    directories: tuple[Path, ...] = ()
    signers: Signers | None = None
    tenant: str = ""
    ledger: Where | None = None

    @classmethod
    def of(cls, config_file: Path) -> Brokerd:
        """The brokerd of a configuration. Raises :class:`Problems`."""
        config = load_config(config_file)
        signers = signers_of(config)
        return cls(config.trust_domain, (config.deploy.directory,), signers, config.tenant, _ledger(config))

    def load(self, directory: Path) -> tuple[DeploySet, Signatures]:
        """The set as this brokerd would load it. Raises :class:`Problems`."""
        loaded = load(directory, self.trust_domain, self.signers)
        if loaded.signed is None:
            return loaded, Signatures()
        highest, compared = self._highest()
        if highest is not None and (problem := overtaken(str(directory), loaded, highest)):
            raise Problems([problem])
        signed = loaded.signed
        note = "" if compared else " (not compared with the ledger)"
        told = f", signed by {', '.join(signed.signers)}; author {signed.author}, serial {signed.serial}{note}"
        return loaded, Signatures(told, {**asdict(signed), "serialCompared": compared})

    def _highest(self) -> tuple[AcceptedDeploy | None, bool]:
        """The newest set that was in force, and whether somebody could tell."""
        if self.ledger is None:
            return None, False
        try:
            with AuditReader(self.ledger) as reader:
                return reader.accepted_deploy(self.tenant), True
        except BrokerError:
            return None, False


def _ledger(config: Config) -> Where | None:
    """Where its ledger is; None where whoever checks may not know that."""
    if config.ledger is None:
        return config.state.directory / "ledger.sqlite3"
    try:
        return ServerAddress(resolve(config.ledger.dsn), config.ledger.allow_unverified)
    except BrokerError:
        return None
