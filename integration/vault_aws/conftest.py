"""What the stories share: Vault's AWS engine as a plug-in of a real OpenBao, and behind it a moto that checks keys.

moto is a double of IAM, and is told here to refuse what no living user's key has signed and what no policy allows. It
does both at once; AWS takes a while to spread either.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import requests
from moto.server import ThreadedMotoServer

from broker.dev.files import private_directory, write_private
from broker.dev.loopback import free_port
from broker.dev.openbao import OpenBaoFacts, OpenBaoServer
from integration.vault_aws.engine import Account, configure_engine, engine_harness, fresh_account
from tests.connectors.harness import Harness
from tests.dev.watched import passable_directory

BUILD = Path(__file__).parent / "binaries" / "build"


class OpenBaoWithEngine(OpenBaoServer):
    """With the plug-in in its catalogue, declared as operators of OpenBao do."""

    def __init__(self, directory: Path, plugin: Path) -> None:
        super().__init__(directory)
        self._plugins = private_directory(directory / "plugins")
        shutil.copy(plugin, self._plugins / "aws")
        (self._plugins / "aws").chmod(0o700)

    def _write_config(self, address: str, port: int, cluster_port: int) -> Path:
        path = super()._write_config(address, port, cluster_port)
        digest = hashlib.sha256((self._plugins / "aws").read_bytes()).hexdigest()
        declared = {"command": "aws", "version": "v1.14.10", "binary_name": "aws", "sha256sum": digest}
        config = {
            **json.loads(path.read_text()),
            "plugin_directory": str(self._plugins),
            "plugin_auto_register": True,
            "plugin": {"secret": {"aws": declared}},
        }
        write_private(path, json.dumps(config, indent=2))
        return path


@pytest.fixture(scope="session")
def binary() -> Path:
    """The engine; built if nobody did so before."""
    done = subprocess.run([BUILD], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip()) / "aws"


@pytest.fixture(scope="session")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    try:
        yield address
    finally:
        requests.post(f"{address}/moto-api/reset-auth", data=b"inf", timeout=10)
        server.stop()


@pytest.fixture(scope="session")
def account(moto: str) -> Account:
    """An account with a bucket, the engine's own user, and from then on no request without a living user's key."""
    made = fresh_account(moto)
    requests.post(f"{moto}/moto-api/reset-auth", data=b"0", timeout=10).raise_for_status()
    return made


@pytest.fixture(scope="session")
def openbao(binary: Path) -> Iterator[OpenBaoServer]:
    with passable_directory() as place, OpenBaoWithEngine(place / "openbao", binary) as running:
        yield running


@pytest.fixture(scope="session")
def bao(openbao: OpenBaoServer, account: Account) -> OpenBaoFacts:
    """With the engine set up as the connector's page says."""
    configure_engine(openbao.facts, account)
    return openbao.facts


@pytest.fixture
def dead_address() -> str:
    """An address on loopback where nobody listens."""
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture
async def harness(bao: OpenBaoFacts, account: Account, dead_address: str) -> AsyncIterator[Harness]:
    """For the contract suite, which is the one of ``tests/connectors``."""
    made = engine_harness(bao, account, dead_address)
    async with made.stack:
        yield made
