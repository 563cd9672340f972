"""Every fault at every point of a story, whichever story it is: which points were looked at, and what broke at them."""

from __future__ import annotations

import asyncio
import os
import tomllib
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TypeVar

from tests.failpoints.points import Armed, Fault, Points
from tests.patience import PATIENCE

REVIEWED = Path(__file__).with_name("reviewed.toml")


class Story(Protocol):
    """Something that is told once, with one fault or none."""

    points: Points

    async def tell(self) -> None:
        """All of it. Raises AssertionError where a promise was not kept."""
        ...


T = TypeVar("T", bound=Story)


def reviewed(kind: str) -> list[str]:
    """The points that somebody has looked at."""
    points: list[str] = tomllib.loads(REVIEWED.read_text())[kind]
    return points


async def brought_to_its_point(
    directory: Path,
    armed: Armed | None,
    impatience: Sequence[float],
    begin: Callable[[Path, float], AbstractContextManager[T]],
) -> T:
    """The story that ``begin`` makes in a directory of its own, with ever more patience, until it has come there.

    Only what hangs may need that: where the machine itself is slower, the broker gives up before.
    """
    for number, impatient in enumerate(impatience):
        again = directory / str(number)
        again.mkdir(mode=0o700, parents=True)
        with begin(again, impatient) as story:
            async with asyncio.timeout(5 * PATIENCE):
                await story.tell()
        if armed is None or armed.fault is not Fault.HANG or story.points.fired:
            break
    return story


async def broken_at(kind: str, directory: Path, told: Callable[[Path, Armed], Awaitable[Story]]) -> list[str]:
    """What broke, by fault. ``FAILPOINT`` in the environment chooses some."""
    only, broken = os.environ.get("FAILPOINT", ""), []
    for armed in (Armed(point, fault) for point in reviewed(kind) for fault in Fault):
        if only not in str(armed):
            continue
        try:
            story = await told(directory / f"{len(list(directory.iterdir()))}", armed)
            if not story.points.fired:
                broken.append(f"{armed}: it was never passed")
        except (AssertionError, TimeoutError) as failed:
            broken.append(f"{armed}: {(str(failed) or repr(failed)).splitlines()[0]}")
        print(armed)
    return broken
