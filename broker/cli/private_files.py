"""A directory that is nobody else's, with files that are nobody else's, for as long as something needs them.

0700 and 0600, fresh, no symbolic link followed; gone when the block ends, however it ends. What a killed process leaves
is for its owner alone, and in the user's runtime directory where there is one, which no restart survives.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from broker.cli.agent_key import AgentKey
from broker.cli.delivery import FileDelivery


class PrivateDirectory:
    """Where files are put."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def put(self, name: str, text: str) -> Path:
        """A new file with this content. Raises OSError, and then there is no such file."""
        path = self.path / name
        delivery = FileDelivery(path)
        try:
            delivery.write(text)
        except BaseException:
            delivery.discard()
            raise
        return path


@contextmanager
def private_directory(environment: Mapping[str, str]) -> Iterator[PrivateDirectory]:
    """A fresh one, removed with all that is in it. Raises OSError."""
    # mkdtemp makes it 0700, with a name that nobody can know before.
    path = Path(tempfile.mkdtemp(prefix="broker-", dir=_parent(environment)))
    try:
        yield PrivateDirectory(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def passing_key(kind: str | None, environment: Mapping[str, str]) -> Iterator[AgentKey | None]:
    """A key for as long as the block lasts, in a directory of its own; None for none. Raises OSError."""
    if kind is None:
        yield None
        return
    with private_directory(environment) as place:
        yield AgentKey(kind, place.path / "key")


def _parent(environment: Mapping[str, str]) -> str | None:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    return runtime if os.path.isabs(runtime) and os.access(runtime, os.W_OK | os.X_OK) else None  # noqa: PTH117
