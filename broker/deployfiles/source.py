"""The set in force, kept until a better one is loaded. When to load is somebody else's decision."""

from __future__ import annotations

from pathlib import Path

from broker.deployfiles import listing
from broker.deployfiles.load import build
from broker.deployfiles.signers import Signers
from broker.files import Problems
from broker.ports.deploys import DeploySet


class DeployFiles:
    """A :class:`~broker.ports.deploys.DeploySource` over one directory. No threads: it looks when told to."""

    def __init__(self, directory: Path, trust_domain: str = "", signers: Signers | None = None) -> None:
        """Loads the set. Raises :class:`~broker.files.Problems`: there is no last good one to keep.

        ``signers``: whose signatures every set needs; None where sets need none.
        """
        self._directory = directory
        self._trust_domain = trust_domain
        self._signers = signers
        self._current = self.load()

    @property
    def directory(self) -> Path:
        """Where sets come from."""
        return self._directory

    @property
    def current(self) -> DeploySet:
        """The set in force."""
        return self._current

    def load(self) -> DeploySet:
        """The set as it is on disk now; in force only once adopted. Raises :class:`~broker.files.Problems`."""
        # Before it is read and judged: a bad set is looked at once, not at every look.
        self._identity = listing.identity(self._directory)
        files = listing.read_set(self._directory)
        self._identity = files.identity
        return build(files, self._trust_domain, self._signers, to_serve=True)

    def digest_on_disk(self) -> str:
        """Of the set as it is on disk now, good or bad. Raises :class:`~broker.files.Problems` if it cannot be read."""
        return listing.read_set(self._directory).digest()

    def adopt(self, candidate: DeploySet) -> None:
        """Put ``candidate`` in force: it was loaded here, and the rest of the daemon can follow it."""
        self._current = candidate

    def swapped(self) -> bool:
        """Whether another directory has the name than at the last load, good or bad. False while none has."""
        try:
            return listing.identity(self._directory) != self._identity
        except Problems:
            return False
