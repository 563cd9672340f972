"""A pytest plugin: a room's tests are collected once, and each mutant is put to them in a process of its own.

mutmut itself begins a session for each mutant, and that takes several times as long as the tests that kill most of
them. Which tests come by which function, and what each costs, is found out in a process of its own, too: whatever
tests leave behind, caches above all, must not be there when the mutant is.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from tests.mutation.mutants import KILLED, NO_TESTS, SURVIVED, TIMEOUT, judge, statuses
from tests.mutation.survivors import ALIVE

_STOPPED = frozenset({signal.SIGXCPU, signal.SIGKILL, signal.SIGALRM})
# Of processor time, beyond ten times what a test takes; and of time, for one that waits for ever.
_SPARE_S, _LONGEST_S = 10, 600
_KEPT_EVERY = 50


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many mutants at a time, and which."""
    parser.addoption("--mutants-at-a-time", type=int, default=1)
    parser.addoption("--mutants-alive", action="store_true", help="those that lived, too; else what was not run yet")


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool:
    """Instead of the tests themselves. Run in the folder of the mutants."""
    here, config = Path.cwd(), session.config
    tests = {item.nodeid: item for item in session.items}
    coming_by, cost = _measured(list(tests.values()))
    wanted = {"not checked", *(ALIVE if config.getoption("--mutants-alive") else ())}
    mutants = {mutant: coming_by.get(_function(mutant), ()) for mutant, status in statuses(here) if status in wanted}
    # The cheap ones first, each by its cheap tests first.
    order = sorted(mutants, key=lambda mutant: sum(cost[test] for test in mutants[mutant]))
    running: dict[int, str] = {}
    verdicts: dict[str, int] = {}

    def one_ended() -> None:
        process, status = os.wait()
        verdicts[running.pop(process)] = verdict(status)
        if len(verdicts) % _KEPT_EVERY == 0:
            judge(here, verdicts)
            sys.__stderr__.write(f"{len(verdicts)} of {len(order)} mutants\n")  # type: ignore[union-attr]

    for mutant in order:
        if not mutants[mutant]:
            verdicts[mutant] = NO_TESTS
            continue
        if len(running) >= config.getoption("--mutants-at-a-time"):
            one_ended()
        process = os.fork()
        if not process:
            _put_to([tests[each] for each in sorted(mutants[mutant], key=cost.__getitem__)], mutant, cost)
        running[process] = mutant
    while running:
        one_ended()
    judge(here, verdicts)
    return True


def verdict(status: int) -> int:
    """Of a process's wait status: a mutant that breaks the process itself is found out, too."""
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in _STOPPED:
        return TIMEOUT
    return SURVIVED if status == 0 else KILLED


def _put_to(tests: Iterable[pytest.Item], mutant: str, cost: Mapping[str, float]) -> None:
    """Never returns."""
    signal.alarm(_LONGEST_S)
    try:
        os.environ["MUTANT_UNDER_TEST"] = mutant
        os._exit(SURVIVED if all(_passes_in_time(test, cost[test.nodeid]) for test in tests) else KILLED)
    except BaseException:  # whatever it is, the mutant was noticed
        os._exit(KILLED)


def _passes_in_time(test: pytest.Item, usual: float) -> bool:
    """Ends the process where ``test`` takes very much longer than its ``usual`` seconds of processor time.

    By test: all that come by a function may take a minute together, and what never ends would have ten times that.
    """
    limit = ceil(time.process_time() + _SPARE_S + 10 * usual)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))
    return _passes(test)


def _passes(test: pytest.Item) -> bool:
    return not any(report.failed for report in runtestprotocol(test, log=False, nextitem=None))


def _measured(tests: Sequence[pytest.Item]) -> tuple[Mapping[str, Sequence[str]], Mapping[str, float]]:
    """The tests that come by each function, and the seconds of processor time that each test takes."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            with os.fdopen(writing, "w") as told:
                json.dump(_measure(tests), told)
            os._exit(0)
        except BaseException as failure:  # it must not go on as if it were the session
            sys.__stderr__.write(f"{failure}\n")  # type: ignore[union-attr]
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as told:
        text = told.read()
    if os.waitpid(process, 0)[1]:
        raise pytest.UsageError("the tests do not pass as it is: nothing can be said of mutants")
    coming_by, cost = json.loads(text)
    return coming_by, cost


def _measure(tests: Iterable[pytest.Item]) -> Any:
    from mutmut.state import state  # of the mutants' own requirements

    os.environ["MUTANT_UNDER_TEST"] = "stats"
    coming_by, cost = defaultdict(list), {}
    for test in tests:
        state()._stats.clear()
        begun = time.process_time()
        if not _passes(test):
            raise AssertionError(f"{test.nodeid} fails without any mutant")
        cost[test.nodeid] = time.process_time() - begun
        for function in state()._stats:
            coming_by[function].append(test.nodeid)
    return coming_by, cost


def _function(mutant: str) -> str:
    """As mutmut tells who came by."""
    return mutant.partition("__mutmut_")[0]
