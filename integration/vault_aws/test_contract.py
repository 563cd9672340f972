"""The Connector port, proven on Vault's own AWS engine by the suite that every adapter passes."""

from tests.connectors.test_contract import *  # noqa: F403 - the suite itself, with this directory's harness
