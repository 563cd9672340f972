"""A disk that remembers what SQLite wrote and what it synced, and the states that a power cut could leave of that.

Put under the very SQLite that runs (the library that Python's ``sqlite3`` is linked to), as its default VFS: a copy of
the system's own whose files' ``xWrite``, ``xTruncate`` and ``xSync`` are noted before they are carried out
(sqlite.org/vfs.html). What was synced is there after a cut; of what was written since, any part may be: none, all, some
writes in whichever order, one of them torn at a sector.
"""

from __future__ import annotations

import _sqlite3
import contextlib
import ctypes
import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECTOR = 512
_OK = 0
_POINTER = ctypes.c_void_p
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, ctypes.c_int, ctypes.c_int64)
_TRUNCATE = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int64)
_SYNC = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, ctypes.c_int)
# The path is passed on as the pointer that it is: SQLite keeps it for as long as the file is open.
_OPEN = ctypes.CFUNCTYPE(ctypes.c_int, _POINTER, _POINTER, _POINTER, ctypes.c_int, ctypes.POINTER(ctypes.c_int))


class _Methods(ctypes.Structure):
    """``sqlite3_io_methods``, of version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("close", _POINTER),
        ("read", _POINTER),
        ("write", _POINTER),
        ("truncate", _POINTER),
        ("sync", _POINTER),
        ("rest", _POINTER * 13),  # xFileSize to xUnfetch
    )


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, of version 3."""

    _fields_ = (
        ("version", ctypes.c_int),
        ("file_size", ctypes.c_int),
        ("longest_path", ctypes.c_int),
        ("next", _POINTER),
        ("name", ctypes.c_char_p),
        ("data", _POINTER),
        ("open", _POINTER),
        ("rest", _POINTER * 17),  # xDelete to xNextSystemCall
    )


@dataclass(frozen=True)
class Written:
    """So many bytes at an offset; None: cut off there."""

    offset: int
    data: bytes | None


@dataclass
class _File:
    """What is on the disk for certain, and what may be."""

    durable: bytearray
    pending: list[Written] = field(default_factory=list)

    def synced(self) -> None:
        for each in self.pending:
            _carry_out(self.durable, each)
        self.pending.clear()


@dataclass
class Disk:
    """What was done to the files of one directory, in order; :meth:`mark` puts a mark into it. Safe from any thread."""

    directory: Path
    before: Mapping[str, bytes]  # the files, by name
    log: list[tuple[str, Written | None]] = field(default_factory=list)  # None: that file was synced
    marks: list[int] = field(default_factory=list)  # where in the log
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str, what: Written | None) -> None:
        with self.lock:
            self.log.append((name, what))

    def mark(self) -> None:
        """Everything up to here was answered."""
        with self.lock:
            self.marks.append(len(self.log))

    def cuts(self, count: int, seed: int) -> Iterator[tuple[int, dict[str, bytes]]]:
        """``count`` states after a cut at some place: how many marks lay before it, and the files as they are then."""
        chance = random.Random(seed)
        places: dict[int, int] = {}
        for _ in range(count):
            place = chance.randint(0, len(self.log))
            places[place] = places.get(place, 0) + 1
        files = {name: _File(bytearray(data)) for name, data in self.before.items()}
        for place in range(len(self.log) + 1):
            for _ in range(places.get(place, 0)):
                answered = sum(mark <= place for mark in self.marks)
                yield answered, {name: _left(each, chance) for name, each in files.items()}
            if place == len(self.log):
                return
            name, what = self.log[place]
            file = files.setdefault(name, _File(bytearray()))
            if what is None:
                file.synced()
            else:
                file.pending.append(what)


def _left(file: _File, chance: random.Random) -> bytes:
    """What a cut leaves of a file."""
    kept: Sequence[Written] = file.pending
    match chance.choice(("none", "all", "some", "some")):
        case "none":
            kept = ()
        case "some":
            share = chance.random()
            kept = [each for each in file.pending if chance.random() < share]
            chance.shuffle(kept)
            kept = [_torn(each, chance) if chance.random() < 0.2 else each for each in kept]
    left = bytearray(file.durable)
    for each in kept:
        _carry_out(left, each)
    return bytes(left)


def _torn(written: Written, chance: random.Random) -> Written:
    if written.data is None or len(written.data) <= _SECTOR:
        return written
    return Written(written.offset, written.data[: _SECTOR * chance.randint(0, len(written.data) // _SECTOR)])


def _carry_out(content: bytearray, written: Written) -> None:
    if written.data is None:
        del content[written.offset :]
        return
    if len(content) < written.offset:
        content.extend(bytes(written.offset - len(content)))
    content[written.offset : written.offset + len(written.data)] = written.data


@contextmanager
def recorded(directory: Path, names: Sequence[str]) -> Iterator[Disk]:
    """While this lasts, what connections that are opened do to the files ``names`` of ``directory`` is noted."""
    before = {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}
    disk = Disk(directory, before)
    library = ctypes.CDLL(_sqlite3.__file__)  # and so what it is linked to
    library.sqlite3_vfs_find.restype = ctypes.POINTER(_Vfs)
    system = library.sqlite3_vfs_find(None).contents
    vfs, kept = _recording(system, disk, set(names))
    library.sqlite3_vfs_register(ctypes.byref(vfs), 1)
    try:
        yield disk
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(vfs))
        _KEPT.append((vfs, kept))


# Files that are open still are written by these functions: they are never let go of.
_KEPT: list[Any] = []


def _recording(system: _Vfs, disk: Disk, names: set[str]) -> tuple[_Vfs, list[Any]]:
    """A copy of the system's VFS, and what must live as long."""
    vfs = _Vfs.from_buffer_copy(system)
    vfs.name, vfs.next = b"recorded", None
    opened = ctypes.cast(system.open, _OPEN)
    of_file: dict[int, str] = {}
    patched: dict[int, _Methods] = {}
    kept: list[Any] = [patched]

    def noting(original: _Methods) -> _Methods:
        write = ctypes.cast(original.write, _WRITE)
        truncate, sync = ctypes.cast(original.truncate, _TRUNCATE), ctypes.cast(original.sync, _SYNC)

        def written(file: int, data: int, amount: int, offset: int) -> int:
            disk.note(of_file[file], Written(offset, ctypes.string_at(data, amount)))
            return int(write(file, data, amount, offset))

        def truncated(file: int, size: int) -> int:
            disk.note(of_file[file], Written(size, None))
            return int(truncate(file, size))

        def synced(file: int, flags: int) -> int:
            answer = int(sync(file, flags))
            if answer == _OK:
                disk.note(of_file[file], None)
            return answer

        made = _Methods.from_buffer_copy(original)
        for name, function in (("write", _WRITE(written)), ("truncate", _TRUNCATE(truncated)), ("sync", _SYNC(synced))):
            kept.append(function)
            setattr(made, name, ctypes.cast(function, _POINTER))
        return made

    def open_(_: int, path: int | None, file: int, flags: int, told: Any) -> int:
        answer = int(opened(ctypes.addressof(system), path, file, flags, told))
        opened_at = Path(ctypes.string_at(path).decode()) if path else Path()  # without a name: a temporary file
        name = opened_at.name
        if answer != _OK or name not in names or opened_at.parent != disk.directory:
            return answer
        methods = ctypes.cast(file, ctypes.POINTER(_POINTER))
        original = methods[0]
        assert original is not None
        if original not in patched:
            patched[original] = noting(_Methods.from_address(original))
        of_file[file] = name
        methods[0] = ctypes.addressof(patched[original])
        return answer

    function = _OPEN(open_)
    kept.append(function)
    vfs.open = ctypes.cast(function, _POINTER)
    return vfs, kept


def put(files: Mapping[str, bytes], directory: Path) -> None:
    """The files as they are after the cut; what else SQLite keeps is not on a disk."""
    for each in directory.iterdir():
        each.unlink()
    for name, data in files.items():
        path = directory / name
        path.touch(mode=0o600)
        path.write_bytes(data)
    with contextlib.suppress(FileNotFoundError):
        (directory / "ledger.sqlite3-shm").unlink()
