"""A program for ``credential_process`` in ~/.aws/config: one JSON object, and no new lease at each call.

SDKs run it whenever a session is in its last quarter of an hour, which with ours is always. So what the broker gave is
kept in a file of the user's alone until it ends, and each call asks the broker only whether its lease still lives. When
the task has ended the file is removed, and the call fails with "task ended", which SDKs show.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import click

from broker.cli.asking import Asking
from broker.cli.delivery import demand_fit
from broker.cli.fitting import demand_form
from broker.cli.output import tell_waiting, to_json
from broker.client import AsyncClient, Grant
from broker.client.forms import Form, credential_process
from broker.client.renewing import task_ended
from broker.client.task import uninterrupted
from broker.clock import SystemClock
from broker.errors import BrokerError, NotReady, Reason

# What is about to end is not given out.
_MARGIN = timedelta(seconds=15)
_MOST_BYTES = 64 * 1024
_BETWEEN_LOOKS_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Kept:
    """What was given out last."""

    lease_id: str
    ends: datetime
    answer: str


async def answer(client: AsyncClient, asked: Asking, task_id: str, directory: Path, wait: timedelta | None) -> str:
    """What to print. Raises BrokerError, TASK_ENDED among others; ClickException for a directory that is not ours."""
    async with _locked(directory, _name(asked, task_id)) as path:
        kept = _read(path)
        if kept is not None and SystemClock().now() < kept.ends - _MARGIN and await _lives(client, kept):
            return kept.answer
        _forget(path)
        if not (await client.get_task(task_id)).is_open:
            raise task_ended(task_id)
        return await _fresh(client, asked, task_id, path, wait)


def _forget(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _lives(client: AsyncClient, kept: Kept) -> bool:
    try:
        return (await client.lease(kept.lease_id)).state == "ACTIVE"
    except NotReady:
        return True  # nobody can tell; if it was ended, its upstream knows


async def _fresh(client: AsyncClient, asked: Asking, task_id: str, path: Path, wait: timedelta | None) -> str:
    await demand_form(client, asked, Form.CREDENTIAL_PROCESS)
    try:
        what = asked.under(task_id, client.new_id)
        grant = await client.request(what, confirm=False, wait_for_approval=wait, on_waiting=tell_waiting)
    except BrokerError as error:
        if error.reason is Reason.TASK_ENDED:
            raise task_ended(task_id) from error
        raise
    try:
        demand_fit(Form.CREDENTIAL_PROCESS, grant)
        text = credential_process(grant)
        await asyncio.to_thread(_write, path, grant, text)
        await client.confirm(grant)
    except BaseException as error:
        _forget(path)
        with contextlib.suppress(BrokerError):
            await uninterrupted(client.revoke(grant.lease.id))
        if isinstance(error, OSError):
            raise click.ClickException(f"the credential could not be kept: {error.strerror}.") from None
        raise
    return text


def default_directory(environment: Mapping[str, str]) -> Path:
    """In the user's runtime directory, which no restart survives; else in the home directory's cache."""
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    base = Path(runtime) if runtime.startswith("/") else Path.home() / ".cache"
    return base / "jit-broker" / "credentials"


def _name(asked: Asking, task_id: str) -> str:
    """The same for the same question under the same task."""
    said = {name: to_json(getattr(asked, name)) for name in Asking.__dataclass_fields__}
    return hashlib.sha256(json.dumps([task_id, said], sort_keys=True).encode()).hexdigest()[:32]


@asynccontextmanager
async def _locked(directory: Path, name: str) -> AsyncIterator[Path]:
    """The path for one question's answer, for one process at a time."""
    _private(directory)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(directory / f"{name}.lock", flags, 0o600)
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be used: {error.strerror}.") from None
    try:
        # Not in the kernel, where no signal would be heard.
        while not _taken(lock):  # noqa: ASYNC110 - other processes have it, and there is no event of theirs
            await asyncio.sleep(_BETWEEN_LOOKS_SECONDS)
        yield directory / f"{name}.json"
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _private(directory: Path) -> None:
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.lstat()
    except OSError as error:
        raise click.ClickException(f"{directory} cannot be made: {error.strerror}.") from None
    if directory.is_symlink() or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise click.ClickException(f"{directory} is not yours alone: it must be a directory of mode 0700, no link.")


def _read(path: Path) -> Kept | None:
    """None for a file that is not there, or is none of ours: another is asked for then."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        try:
            said = json.loads(file.read(_MOST_BYTES))
            return Kept(str(said["lease"]), datetime.fromisoformat(said["ends"]), str(said["answer"]))
        except (ValueError, KeyError, TypeError):
            return None


def _write(path: Path, grant: Grant, text: str) -> None:
    ends = grant.lease.expire_time
    if ends is None:
        raise ValueError("a lease without an end cannot be kept until it")
    said = {"lease": grant.lease.id, "ends": ends.isoformat(), "answer": text}
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(said, file)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
