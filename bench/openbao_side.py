"""The comparison: token creation by a real OpenBao (raft storage, file audit), driven by ApacheBench.

ApacheBench takes the token on its command line, where every account of this machine can read it for
as long as it runs. It is the root token of a server that holds nothing, listens on loopback and is
gone when the measurement is.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil

from bench.figures import Measurement
from bench.generator import cpu_seconds_of
from broker.dev.openbao import OpenBaoServer

# Of a service token that lives for minutes and cannot be renewed: what a broker would ask for.
# An orphan, because a child costs OpenBao one more write.
TOKEN = {
    "no_parent": True,
    "policies": ["default"],
    "ttl": "5m",
    "explicit_max_ttl": "5m",
    "renewable": False,
    "display_name": "bench",
    "meta": {"attempt": "jb-aaaaaaaaaaaaaaaaaaaaaaaaaa", "holder": "spiffe://bench.broker.internal/agent/number-0000"},
}
_UNLIMITED = "100000000"


class OpenBaoSide:
    """OpenBao with its storage under ``directory``; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._server = OpenBaoServer(directory / "openbao")

    def __enter__(self) -> Self:
        if shutil.which("ab") is None:
            raise RuntimeError("ab is missing (Debian: apt-get install apache2-utils)")
        self._server.start()
        (self._directory / "token.json").write_text(json.dumps(TOKEN))
        return self

    def __exit__(self, *_: object) -> None:
        self._server.destroy()

    @property
    def pid(self) -> int:
        """Of OpenBao."""
        assert self._server.pid is not None
        return self._server.pid

    def measure(self, callers: int, *, warm_up: float, duration: float) -> Measurement:
        """Tokens created over ``callers`` kept-alive connections."""
        self._drive(callers, max(1, round(warm_up)))
        server = psutil.Process(self.pid)
        before = cpu_seconds_of(server)
        driven = self._drive(callers, round(duration))
        used = cpu_seconds_of(server) - before
        return Measurement(
            driven.rate, driven.p50_ms, driven.p99_ms, driven.cpu / driven.elapsed, used / driven.elapsed
        )

    def _drive(self, callers: int, seconds: int) -> _Driven:
        percentiles = self._directory / "percentiles.csv"
        token = self._server.facts.root_token.reveal()
        command = ["ab", "-q", "-k", "-l", "-c", str(callers), "-t", str(seconds), "-n", _UNLIMITED]
        command += ["-e", str(percentiles), "-p", str(self._directory / "token.json"), "-T", "application/json"]
        command += ["-H", f"X-Vault-Token: {token}", f"{self._server.facts.address}/v1/auth/token/create"]
        with tempfile.TemporaryFile("w+") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            told = out.read()
        if process.returncode or "Non-2xx" in told or not re.search(r"Failed requests: +0\n", told):
            raise RuntimeError(f"ab failed: {told[-2000:]}")
        percentile = {int(row[0]): float(row[1]) for row in list(csv.reader(percentiles.open()))[1:]}
        return _Driven(
            rate=_figure(told, "Requests per second"),
            elapsed=_figure(told, "Time taken for tests"),
            p50_ms=percentile[50],
            p99_ms=percentile[99],
            cpu=used.ru_utime + used.ru_stime,
        )


@dataclass(frozen=True, slots=True)
class _Driven:
    rate: float  # per second
    elapsed: float  # seconds, as is cpu
    p50_ms: float
    p99_ms: float
    cpu: float


def _figure(told: str, name: str) -> float:
    found = re.search(rf"{name}: +([0-9.]+)", told)
    if found is None:
        raise RuntimeError(f"ab did not tell {name!r}: {told[-2000:]}")
    return float(found[1])
