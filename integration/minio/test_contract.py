"""The Connector port, proven on the real MinIO by the suite that every adapter passes."""

from tests.connectors.test_contract import *  # noqa: F403 - the suite itself, with this directory's harness
