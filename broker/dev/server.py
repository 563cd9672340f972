"""One development server as its users see it: started, told about, stopped; whatever it is that runs."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Generic, Self, TypeVar

from broker.dev.process import ServerProcess
from broker.errors import NotReady, Reason

Facts = TypeVar("Facts")


class DevServer(ABC, Generic[Facts]):
    """A context manager. A subclass makes directory and process, and starts it."""

    what: ClassVar[str]  # as the reader of an error is told: "The development MinIO"

    def __init__(self, directory: Path, process: ServerProcess) -> None:
        self._directory = directory
        self._process = process
        self._facts: Facts | None = None

    @property
    def facts(self) -> Facts:
        """Facts of the running server. Raises :class:`NotReady` before :meth:`start`."""
        if self._facts is None:
            raise NotReady(Reason.UPSTREAM_UNAVAILABLE, f"{self.what} is not running.")
        return self._facts

    @property
    def pid(self) -> int | None:
        """Process id of the server while it runs."""
        return self._process.pid

    @abstractmethod
    def start(self) -> Facts:
        """Start it; returns when it can be used. Raises :class:`UpstreamFailed`."""

    def stop(self) -> None:
        """Stop it; what it stored stays. Twice is the same as once."""
        self._process.stop()
        self._facts = None

    def destroy(self) -> None:
        """Stop it and remove everything under its directory."""
        self.stop()
        shutil.rmtree(self._directory)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
