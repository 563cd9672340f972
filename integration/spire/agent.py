"""A real SPIRE agent: attests itself with a join token, then attests processes that open its socket."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from string import Template

from broker.dev.files import private_directory, write_private
from broker.dev.process import ServerProcess
from integration.spire.server import SpireServer

_START_SECONDS = 120.0
_CONFIGURATION = Path(__file__).with_name("agent.conf")


class SpireAgent:
    """The node ``spiffe://TRUST-DOMAIN/node`` of ``server``, with everything it writes in ``directory``."""

    def __init__(self, binaries: Path, directory: Path, server: SpireServer) -> None:
        self.node = f"spiffe://{server.trust_domain}/node"
        self.socket = directory / "agent.sock"
        self._binary = binaries / "spire-agent"
        self._directory = private_directory(directory)
        self._server = server
        self._process = ServerProcess(
            "spire-agent", directory, stop_signal=signal.SIGTERM, environment={"HOME": str(directory)}
        )

    @property
    def endpoint(self) -> str:
        """What goes into SPIFFE_ENDPOINT_SOCKET."""
        return f"unix://{self.socket}"

    def start(self) -> None:
        """Join, and return once the Workload API is open."""
        bundle = self._directory / "bootstrap.pem"
        write_private(bundle, self._server.bundle())
        text = Template(_CONFIGURATION.read_text()).substitute(
            trust_domain=self._server.trust_domain,
            port=self._server.port,
            bundle=bundle,
            join_token=self._server.join_token(self.node),
            socket=self.socket,
            data=private_directory(self._directory / "data"),
        )
        configuration = self._directory / "agent.conf"
        write_private(configuration, text)
        self._process.start([self._binary, "run", "-config", configuration], cwd=self._directory)
        self._process.wait_until(self._listens, within=_START_SECONDS)

    def stop(self) -> None:
        """Twice is the same as once."""
        self._process.stop()

    def _listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self.socket)) == 0
