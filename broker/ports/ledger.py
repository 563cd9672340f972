"""The whole ledger."""

from __future__ import annotations

from typing import Protocol

from broker.ports.allocations import AllocationStore
from broker.ports.break_glass import BreakGlassStore
from broker.ports.canaries import CanaryStore
from broker.ports.lease_store import LeaseStore
from broker.ports.orphans import OrphanStore
from broker.ports.pipelines import PipelineStore
from broker.ports.replicas import ReplicaStore
from broker.ports.reviews import ReviewStore
from broker.ports.trail import TrailStore
from broker.ports.views import ViewStore


class Ledger(
    LeaseStore,
    PipelineStore,
    ReviewStore,
    BreakGlassStore,
    TrailStore,
    ViewStore,
    OrphanStore,
    CanaryStore,
    AllocationStore,
    ReplicaStore,
    Protocol,
):
    """All in one: what the whole of issuing works on."""
