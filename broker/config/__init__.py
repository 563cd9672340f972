"""brokerd's own file: where it listens, who it is, where things lie, and its limits.

Belongs here: the shape of ``--config FILE``. Does not belong here: what operators deploy (``broker/deployfiles``), and
reading keys or certificates, which happens when the daemon is wired.
"""

from __future__ import annotations

from pathlib import Path

from broker.config.contradictions import contradictions
from broker.config.fields import PERSON_NAME, HostPort, KeyName, TrustDomain
from broker.config.model import Config, DeployKey, People, Proxies, Webhook
from broker.config.witnesses import Checkpoints, HttpWitness, S3Witness, SyslogWitness, WitnessSettings
from broker.files import Problems, parse_yaml, read_text, validated

__all__ = [
    "PERSON_NAME",
    "Checkpoints",
    "Config",
    "DeployKey",
    "HostPort",
    "HttpWitness",
    "KeyName",
    "People",
    "Proxies",
    "S3Witness",
    "SyslogWitness",
    "TrustDomain",
    "Webhook",
    "WitnessSettings",
    "load_config",
]


def load_config(path: Path) -> Config:
    """The configuration in ``path``. Raises :class:`~broker.files.Problems` with all that is wrong."""
    shown = str(path)
    document = parse_yaml(shown, read_text(path, shown))
    config = validated(Config, document, context={"base": path.parent.absolute()})
    config._document = document
    if problems := list(contradictions(config, document)):
        raise Problems(problems)
    return config
