"""The network between daemons and their database: a process of its own that carries bytes, until it is told not to.

``python -m integration.replicas.wires PORT:TO_PORT ...`` listens at each PORT of loopback and carries to TO_PORT. A
line on its standard input changes one: ``cut PORT`` resets what is open and takes nothing new, ``hang PORT`` leaves
everything open and carries nothing, ``pass PORT`` ends both.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Self

from broker.dev.loopback import LOOPBACK

# SO_LINGER of no seconds: a close is a reset, as when a network's state is lost.
_RESET = struct.pack("ii", 1, 0)
_AT_ONCE = 65_536


class Order(StrEnum):
    """What a wire does from now on."""

    PASS = "pass"
    CUT = "cut"
    HANG = "hang"


class Wires:
    """The process, as others hold it: a context manager. ``wires``: from where to where, by port."""

    def __init__(self, wires: Iterable[tuple[int, int]]) -> None:
        self._arguments = [f"{port}:{to}" for port, to in wires]

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "integration.replicas.wires", *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"
        return self

    def order(self, order: Order, port: int) -> None:
        """From now on; returns when it is so."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{order} {port}\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "done\n"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class _Wire:
    def __init__(self, to: int) -> None:
        self._to = to
        self._open: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()
        self._passes.set()
        self._cut = False

    def obey(self, order: Order) -> None:
        self._cut = order is Order.CUT
        if order is Order.HANG:
            self._passes.clear()
        else:
            self._passes.set()
        if self._cut:
            for each in list(self._open):
                _reset(each)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        await self._passes.wait()
        other = None
        try:
            if self._cut:
                return
            there, other = await asyncio.open_connection(LOOPBACK, self._to)
            self._open.add(other)
            ways = {asyncio.ensure_future(self._one(reader, other)), asyncio.ensure_future(self._one(there, writer))}
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for each in ways:
                each.cancel()
        except OSError:
            return
        finally:
            for end in (writer, other):
                if end is not None:
                    self._open.discard(end)
                    _reset(end)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while said := await reader.read(_AT_ONCE):
                await self._passes.wait()
                writer.write(said)
                await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection: socket.socket | None = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


async def work(arguments: list[str]) -> None:
    """Carry and obey until the standard input ends."""
    wires: dict[int, _Wire] = {}
    for argument in arguments:
        port, to = map(int, argument.split(":"))
        wires[port] = _Wire(to)
        await asyncio.start_server(wires[port].carry, LOOPBACK, port)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        order, port = line.split()
        wires[int(port)].obey(Order(order))
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1:]))
