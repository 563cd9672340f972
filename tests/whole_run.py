"""A run of the tests as a whole: where its files go, what is begun first, and what is not said."""

from __future__ import annotations

import atexit
import gc
import os
import py_compile
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import cache_from_source
from pathlib import Path

import psutil
import pytest
from _pytest.assertion import rewrite
from hypothesis import HealthCheck, is_hypothesis_test, settings

from broker.dev import loopback

_MEMORY = Path("/dev/shm")
_PREFIX = "jb-"  # short: the path of a unix socket has 107 bytes
_RUN = "run.pid"
_ENOUGH = 1 << 30  # a run fills about 0.3 GiB
_SOURCES = ("broker", "tests")
_QUICK = "quick"
_PART, _LEAST = 0.2, 10  # of a property's examples


def temporary_files_in_memory(config: pytest.Config) -> None:
    """``TMPDIR`` for this run, its workers and their children, in a file system that is memory, if there is room.

    The store waits for the disk at every commit, as it must, and a busy disk answers after tens of
    milliseconds: five minutes a run. No test can see the difference: what a disk keeps when the power goes
    nobody here can try, and what a killed process leaves behind the kernel keeps either way. Whoever names a
    place (``TMPDIR``, ``--basetemp``, to look at it afterwards) is left alone.
    """
    a_worker = hasattr(config, "workerinput")
    if a_worker or config.getoption("basetemp") or "TMPDIR" in os.environ or not _has_room(_MEMORY):
        return
    _remove_what_killed_runs_left()
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY))
    (directory / _RUN).write_text(str(os.getpid()))
    directory.chmod(0o711)  # as /tmp, it lets the accounts pass that servers step down to; what is in it is private
    os.environ["TMPDIR"] = tempfile.tempdir = str(directory)
    # At the very end: what was begun later and has files there, as multiprocessing, is ended before.
    atexit.register(_remove, directory, os.getpid())


@contextmanager
def garbage_left_alone() -> Iterator[None]:
    """While tests are collected, next to nothing becomes garbage, and looking for it takes half of the time.

    What is there afterwards stays for the whole run, and is not looked through again at each later look.
    """
    gc.disable()
    try:
        yield
        gc.collect()
        gc.freeze()
    finally:
        gc.enable()


def sources_compiled_once(config: pytest.Config) -> None:
    """In a fresh clone every worker would compile every source, and pytest rewrites each test's assertions before.

    So each worker begins with its share of them. Who comes to one that is not there yet compiles it, too: what is
    written is written whole, and the same.
    """
    if not hasattr(config, "workerinput") or sys.dont_write_bytecode:
        return
    own, of = _place(config)
    for source in sorted(path for each in _SOURCES for path in (config.rootpath / each).rglob("*.py"))[own::of]:
        if source.name.startswith("test_"):
            _rewrite(source, config)
        elif not Path(cache_from_source(str(source))).exists():
            py_compile.compile(str(source))


def _rewrite(source: Path, config: pytest.Config) -> None:
    """As pytest does when it imports it (its ``AssertionRewritingHook.exec_module``), without running it."""
    compiled = rewrite.get_cache_dir(source) / f"{source.stem}{rewrite.PYC_TAIL}"
    if compiled.exists() or not rewrite.try_makedirs(compiled.parent):
        return
    digest, code = rewrite._rewrite_test(source, config)
    rewrite._write_pyc(config.stash[rewrite.assertstate_key], code, digest, compiled)


def ports_of_its_own(config: pytest.Config) -> None:
    """Between a worker's look at a port and its server's bind, another worker's server would take it now and then."""
    if hasattr(config, "workerinput"):
        own, of = _place(config)
        loopback._COUNT //= of
        loopback._FIRST += own * loopback._COUNT


def _place(config: pytest.Config) -> tuple[int, int]:
    """Which worker this is, from 0, and of how many."""
    return int(config.workerinput["workerid"].removeprefix("gw")), int(config.workerinput["workercount"])


def no_grammars() -> None:
    """jsonschema builds 38 parsers when it is imported, which takes 3 s, for a check that nobody asks for."""
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]


def no_chatter_of_grpc() -> None:
    """Its library in C tells every connection that ended, past pytest, in the middle of the dots."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def interrupts_as_at_a_terminal() -> None:
    """A shell starts with SIGINT ignored what it starts in the background, and so is all that is started from there."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def examples_at_any_speed() -> None:
    """hypothesis would fail an example that takes longer than usual, because the machine stood still."""
    settings.register_profile(
        "any speed", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.register_profile(_QUICK, settings.get_profile("any speed"))
    settings.load_profile("any speed")


def keep_those_of_postgres(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What asks for a PostgreSQL server, by a fixture or as one of several databases or upstreams."""
    kept = [
        each for each in items if "postgres_server" in getattr(each, "fixturenames", ()) or "[postgres" in each.name
    ]
    config.hook.pytest_deselected(items=[each for each in items if each not in set(kept)])
    items[:] = kept


def fewer_examples(config: pytest.Config, items: list[pytest.Item]) -> None:
    """``--hypothesis-profile quick``: a part of each property's examples. ``make test-slow`` tries all of them."""
    if config.getoption("--hypothesis-profile") != _QUICK:
        return
    # Once for each: of one that is parametrized there are several items. A state machine's are its class's.
    found = (each for item in items if is_hypothesis_test(getattr(item, "obj", None)) for each in _settings_of(item))
    tests = {id(test): (test, name) for test, name in found}
    for test, name in tests.values():
        known = getattr(test, name)
        setattr(test, name, settings(known, max_examples=max(_LEAST, round(_PART * known.max_examples))))


def _settings_of(item: pytest.Item) -> Iterator[tuple[object, str]]:
    """Whose attribute of what name the settings of a property are."""
    bound = getattr(item, "obj", None)
    function = getattr(bound, "__func__", bound)
    for holder, name in ((function, "_hypothesis_internal_use_settings"), (getattr(item, "cls", None), "settings")):
        if isinstance(getattr(holder, name, None), settings):
            yield holder, name


def put_long_modules_first(items: list[pytest.Item]) -> None:
    """Otherwise a worker may begin the longest of all when the other has nothing left to do."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def _has_room(place: Path) -> bool:
    if not place.is_dir() or not os.access(place, os.W_OK) or os.statvfs(place).f_flag & os.ST_NOEXEC:
        return False
    return min(shutil.disk_usage(place).free, psutil.virtual_memory().available) >= _ENOUGH


def _remove_what_killed_runs_left() -> None:
    for record in _MEMORY.glob(f"{_PREFIX}*/{_RUN}"):
        written = record.read_text() if record.stat().st_uid == os.geteuid() else ""
        if written and not psutil.pid_exists(int(written)):
            shutil.rmtree(record.parent, ignore_errors=True)


def _remove(directory: Path, run: int) -> None:
    if os.getpid() == run:  # and not a fork of it
        shutil.rmtree(directory, ignore_errors=True)
