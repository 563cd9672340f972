"""What canaries measure of more engines of OpenBao; the pages in docs/connectors tell the figures.

    .venv/bin/python -m pytest -s integration/test_vault_canaries.py

prints them. brokerd and OpenBao are real. Certificates are looked at as relying parties look at them. The Kubernetes
API is a double, so of that engine it is OpenBao's part that is measured: how soon the service account is gone.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from integration.stacks import stack_world
from integration.test_canaries import KINDS, RUNS, Measurement, measured, told
from integration.vault.engines import KUBERNETES, PKI, SSH, Engines
from tests.connectors.kubernetes_double import kubernetes_double
from tests.dev.watched import passable_directory

MEASURED = ((PKI, "revoke"), (PKI, "expiry"), (SSH, "expiry"), (KUBERNETES, "revoke"), (KUBERNETES, "expiry"))


async def test_every_bound_is_kept() -> None:
    with passable_directory() as directory, kubernetes_double() as cluster:
        engines = Engines(cluster)
        async with stack_world(directory / "stack", None, engines.change) as world:
            await asyncio.to_thread(engines.set_up, world)
            for name, word in MEASURED:
                found = [await measured(world, name, KINDS[word]) for _ in range(RUNS)]
                print(f"{name:18} {word}  {told(found)}")
                assert [each.outcome for each in found] == [Measurement.OUTCOME_WITHIN] * RUNS, found
                # A certificate's own times are whole seconds, rounded down.
                assert all(each.measured.ToTimedelta() >= timedelta(seconds=-2) for each in found)
