"""One trust domain run by SPIRE: its server, one agent beside it, and the programs enrolled there."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from broker.dev.files import private_directory
from integration.spire.agent import SpireAgent
from integration.spire.programs import Program
from integration.spire.server import SpireServer


class Spire:
    """``trust_domain``, everything of it in ``directory``."""

    def __init__(self, binaries: Path, directory: Path, trust_domain: str) -> None:
        self._directory = private_directory(directory)
        self.trust_domain = trust_domain
        self.server = SpireServer(binaries, directory / "server", trust_domain)
        self.agent = SpireAgent(binaries, directory / "agent", self.server)

    def start(self) -> None:
        """Server, then agent."""
        self.server.start()
        self.agent.start()

    def stop(self) -> None:
        """Both, whatever comes of the first."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.server.stop)
            stack.callback(self.agent.stop)

    def id(self, path: str) -> str:
        """The SPIFFE ID of ``path`` here."""
        return f"spiffe://{self.trust_domain}{path}"

    def program(self, name: str, environment: Mapping[str, str] | None = None) -> Program:
        """A program of its own that opens this agent's socket; not enrolled yet."""
        return Program(
            self._directory / "programs" / name,
            {"SPIFFE_ENDPOINT_SOCKET": self.agent.endpoint, **(environment or {})},
        )

    def enrol(
        self,
        path: str,
        program: Program,
        *,
        ttl: int | None = None,
        dns: Sequence[str] = (),
        federates_with: Sequence[str] = (),
    ) -> str:
        """Have ``program`` get the SVID of ``path``, and wait until it does; the entry's id."""
        entry = self.server.enrol(
            self.agent.node, self.id(path), program.selectors, ttl=ttl, dns=dns, federates_with=federates_with
        )
        told = program.run("svid", self.id(path))
        assert told["id"] == self.id(path), told
        return entry
