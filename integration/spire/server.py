"""A real SPIRE server: its process, and its own command line, which is how operators speak to it.

Belongs here: starting ``spire-server run`` on ``server.conf``, and one method for each command of it that the
stories or ``docs/identity.md`` use. Whom to enrol, and as what, is the stories' business.
"""

from __future__ import annotations

import base64
import json
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_private_key

from broker.dev.files import private_directory, write_private
from broker.dev.loopback import free_port
from broker.dev.process import ServerProcess

_START_SECONDS = 120.0
_COMMAND_SECONDS = 120.0
_CONFIGURATION = Path(__file__).with_name("server.conf")


class SpireServer:
    """The authority of ``trust_domain``, with everything it writes in ``directory``."""

    def __init__(self, binaries: Path, directory: Path, trust_domain: str) -> None:
        self.trust_domain = trust_domain
        self.port = free_port()
        self.binary = binaries / "spire-server"
        self._directory = private_directory(directory)
        self.socket = directory / "api.sock"
        self._keys = directory / "keys.json"
        self._process = ServerProcess(
            "spire-server", directory, stop_signal=signal.SIGTERM, environment={"HOME": str(directory)}
        )

    def start(self) -> None:
        """Returns once it answers."""
        text = Template(_CONFIGURATION.read_text()).substitute(
            trust_domain=self.trust_domain,
            port=self.port,
            socket=self.socket,
            data=private_directory(self._directory / "data"),
            keys=self._keys,
        )
        configuration = self._directory / "server.conf"
        write_private(configuration, text)
        self._process.start([self.binary, "run", "-config", configuration], cwd=self._directory)
        self._process.wait_until(self._healthy, within=_START_SECONDS)

    def stop(self) -> None:
        """Twice is the same as once."""
        self._process.stop()

    def command(self, *words: str, stdin: str | None = None) -> str:
        """``spire-server WORDS`` over its private socket; what it printed."""
        done = self._run(*words, stdin=stdin)
        assert done.returncode == 0, f"spire-server {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout

    # ------------------------------------------------------------------ what operators do

    def join_token(self, node: str) -> str:
        """A token with which one agent may join, as the node ``spiffe://TRUST-DOMAIN/node``."""
        told = json.loads(self.command("token", "generate", "-spiffeID", node, "-output", "json"))
        return str(told["value"])

    def enrol(
        self,
        parent: str,
        spiffe_id: str,
        selectors: Sequence[str],
        *,
        ttl: int | None = None,
        dns: Sequence[str] = (),
        federates_with: Sequence[str] = (),
    ) -> str:
        """``entry create``: processes with all ``selectors`` get ``spiffe_id`` on ``parent``; ``ttl`` in seconds.

        Returns the entry's id.
        """
        words = ["entry", "create", "-parentID", parent, "-spiffeID", spiffe_id, "-output", "json"]
        words += [word for selector in selectors for word in ("-selector", selector)]
        words += [word for name in dns for word in ("-dns", name)]
        words += [word for domain in federates_with for word in ("-federatesWith", f"spiffe://{domain}")]
        if ttl is not None:
            words += ["-x509SVIDTTL", str(ttl)]
        (result,) = json.loads(self.command(*words))["results"]
        return str(result["entry"]["id"])

    def delete(self, entry: str) -> None:
        """``entry delete``."""
        self.command("entry", "delete", "-entryID", entry)

    def bundle(self, form: str = "pem") -> str:
        """``bundle show``: what verifies this domain's SVIDs, as ``pem`` or ``spiffe`` (a JWK set)."""
        return self.command("bundle", "show", "-format", form)

    def federate(self, other: SpireServer) -> None:
        """``bundle set``: hand the bundle of ``other`` to the workloads that federate with it."""
        words = ("bundle", "set", "-format", "spiffe", "-id", f"spiffe://{other.trust_domain}")
        self.command(*words, stdin=other.bundle("spiffe"))

    def part_from(self, trust_domain: str) -> None:
        """``bundle delete``, out of every entry that federates with it."""
        self.command("bundle", "delete", "-id", f"spiffe://{trust_domain}", "-mode", "dissociate")

    def prepare_authority(self, kind: str) -> str:
        """``localauthority KIND prepare``: a new key, x509 or jwt, that is published and signs nothing yet; its id."""
        told = json.loads(self.command("localauthority", kind, "prepare", "-output", "json"))
        return str(told["prepared_authority"]["authority_id"])

    def activate_authority(self, kind: str, authority: str) -> str:
        """``localauthority KIND activate``: from now on this one signs; the id of the one before."""
        told = json.loads(self.command("localauthority", kind, "show", "-output", "json"))
        self.command("localauthority", kind, "activate", "-authorityID", authority)
        return str(told["active"]["authority_id"])

    def revoke_authority(self, kind: str, authority: str) -> None:
        """``localauthority KIND taint`` (what it signed is replaced), then ``revoke``: it leaves the bundle."""
        self.command("localauthority", kind, "taint", "-authorityID", authority)
        self.command("localauthority", kind, "revoke", "-authorityID", authority)

    # ------------------------------------------------------------------ what a thief does

    def stolen_authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        """The CA's certificate and its private key: all that whoever takes over this server has."""
        keys: dict[str, Any] = json.loads(self._keys.read_text())["keys"]
        certificates = x509.load_pem_x509_certificates(self.bundle().encode())
        for text in keys.values():
            key = load_der_private_key(base64.b64decode(text), None)
            for certificate in certificates:
                if isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == key.public_key():
                    return certificate, key
        raise AssertionError("none of the server's keys is its CA's")

    def _healthy(self) -> bool:
        return self.socket.exists() and self._run("healthcheck").returncode == 0

    def _run(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        at = {"healthcheck": 1, "localauthority": 3}.get(words[0], 2)
        return subprocess.run(
            [self.binary, *words[:at], "-socketPath", self.socket, *words[at:]],
            capture_output=True,
            text=True,
            input=stdin,
            timeout=_COMMAND_SECONDS,
            env={"HOME": str(self._directory)},
            check=False,
        )
