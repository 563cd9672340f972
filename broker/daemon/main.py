"""The ``brokerd`` command: read the configuration, guard the process, serve until told to stop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path

import structlog
import uvloop

from broker import logs
from broker.api.connections import take_what_there_is
from broker.config import Config, load_config
from broker.connectors.lending import Lending
from broker.connectors.registry import build
from broker.daemon import collector
from broker.daemon.ledger import clock_of
from broker.daemon.own_tokens import own_tokens
from broker.daemon.pool import Build
from broker.daemon.wiring import Brokerd
from broker.errors import BrokerError, NotReady, Unauthenticated
from broker.files import Problems
from broker.references import resolve

log = structlog.get_logger("brokerd")

# sysexits(3)
EX_CONFIG = 78
EX_UNAVAILABLE = 69


def main(argv: Sequence[str] | None = None, connectors: Build | None = None) -> int:
    """Run brokerd. Exit codes: 0 stopped as told, 69 could not serve, 78 the configuration is wrong.

    ``connectors`` builds other connectors than the real ones (bench/brokerd.py).
    """
    parser = argparse.ArgumentParser(prog="brokerd", description="The just-in-time credential broker.")
    parser.add_argument("--config", type=Path, required=True, help="brokerd's own configuration file (YAML)")
    parser.add_argument("--version", action="version", version=f"brokerd {version('jit-broker')}")
    arguments = parser.parse_args(argv)
    _guard_process()
    collector.rarely()
    try:
        config = load_config(arguments.config)
    except BrokerError as refused:
        return _tell(refused, EX_CONFIG)
    logs.configure(config.log.level, config.log.format)
    try:
        # The same loop as asyncio's own, in C: less processor time per RPC.
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(_serve(config, connectors))
    except (NotReady, Unauthenticated) as not_yet:
        # The ledger is in use, or the Workload API is not there: nothing that another start could not find better.
        return _tell(not_yet, EX_UNAVAILABLE)
    except BrokerError as refused:
        return _tell(refused, EX_CONFIG)
    except (OSError, RuntimeError) as failure:
        sys.stderr.write(f"brokerd: {failure}\n")
        return EX_UNAVAILABLE


async def _serve(config: Config, connectors: Build | None) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    clock = clock_of(config)
    lending = Lending(config.tenant)
    real = partial(build, resolve=resolve, clock=clock, own=own_tokens(config, clock), lending=lending)
    daemon = Brokerd(config, clock, connectors or real, lending)
    hung_up = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Until the first set is in force a hang-up changes nothing: the set is being read anyway.
    loop.add_signal_handler(signal.SIGHUP, lambda: None)
    try:
        await daemon.start()
    except BaseException:
        await daemon.abandon()
        raise
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    reloading = asyncio.create_task(_reload_when_told(daemon, hung_up))
    collector.settle()
    pid_file = config.state.directory / "brokerd.pid"
    try:
        pid_file.write_text(f"{os.getpid()}\n")
    except OSError as failure:  # a full disk keeps nobody from revoking
        log.error("the pid file cannot be written; broker reload needs it", file=str(pid_file), error=str(failure))
    try:
        asked = await daemon.until(stop)
    finally:
        with contextlib.suppress(OSError):
            pid_file.unlink(missing_ok=True)
        # Nothing comes into force while the rest is being let go of.
        reloading.cancel()
        await asyncio.wait([reloading])
        await daemon.stop()
    return 0 if asked else EX_UNAVAILABLE


async def _reload_when_told(daemon: Brokerd, told: asyncio.Event) -> None:
    """Until it is cancelled. However often it is told while a set is being taken in, one more is enough."""
    while True:
        await told.wait()
        told.clear()
        try:
            await daemon.reload()
        except BrokerError as failure:
            log.error("a reload could not be carried out", reason=failure.reason)
        except Exception:
            log.exception("a reload could not be carried out")


def _guard_process() -> None:
    """No core dumps (they would hold secrets), no file of ours readable by others, and all the room there is."""
    take_what_there_is()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)


def _tell(refused: BrokerError, code: int) -> int:
    lines = [str(each) for each in refused.problems] if isinstance(refused, Problems) else [str(refused)]
    for line in lines:
        sys.stderr.write(f"brokerd: {line}\n")
    return code
