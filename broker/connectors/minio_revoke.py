"""Ending what one attempt made in MinIO, and proving it (``minio_sts.py`` makes it).

*A good answer is no proof.* A node ends the sessions that it has in its memory, and says 204 whether or not
there was one; those from before its last start are on its disks, and come to mind only when somebody asks
for them. So each node is told to end the session, then asked for it by its access key; where it is still there, both
once more. In this order, because asking for one that is there can take MinIO hundreds of milliseconds; it works on
meanwhile.
*Every node*: each has a memory of its own, and is told of new sessions by the others but not of revoked ones.

An attempt whose access key was never noted was delivered to nobody: the reply is lost, or this broker died
with it. It is ended by its revoke type, again until no late create can land.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from datetime import timedelta
from functools import partial

from broker.connectors.minio_admin import MinioAdmin, MinioFailure
from broker.connectors.threads import Threads
from broker.lease.deadlines import until_next_sweep
from broker.ports.connectors import Handle, NotYet, Refused, RevokeContext, Revoked, RevokeOutcome


class SessionEnder:
    """Ends attempts of one connector. ``user`` is the broker's own, as whom it asks."""

    def __init__(self, name: str, user: str, nodes: Sequence[str], admin: MinioAdmin, threads: Threads) -> None:
        self._name = name
        self._user = user
        self._nodes = nodes
        self._admin = admin
        self._threads = threads

    async def end(self, handle: Handle, context: RevokeContext) -> RevokeOutcome:
        """One try. Returns, whatever happens upstream."""
        try:
            proof = await self._threads.run(partial(self._end, handle))
        except MinioFailure as failure:
            if failure.refuses_us:
                return Refused(f"{self._name} refuses the broker's own user: {failure.what}.")
            return NotYet(f"{self._name} could not end it: {failure.what}.", failure.retry_after)
        # One session per attempt: whoever knows its access key knows that the create has landed.
        if not context.outcome_known and "access_key" not in handle:
            wait = until_next_sweep(context.now, context.created_at, context.issue_deadline)
            if wait > timedelta(0):
                return NotYet("a session may still be made late; it is ended again.", wait, failed=False)
        return Revoked({"proof": proof, "nodes": len(self._nodes)})

    def end_quietly(self, handle: Handle) -> None:
        """A best effort, in a thread: the revoker does it again, and says what came of it."""
        with contextlib.suppress(MinioFailure):
            self._end(handle)

    def _end(self, handle: Handle) -> str:
        """What proves it. Raises MinioFailure unless every node did as it was told."""
        user, attempt, access_key = str(handle["user"]), str(handle["attempt"]), handle.get("access_key")
        if access_key is None or user != self._user:
            # Of another user's session MinIO says nothing to us; ending it takes an admin right, and then its word.
            for node in self._nodes:
                self._admin.revoke(node, user, attempt)
            return "each node said that no session has this attempt's revoke type any more"
        for node in self._nodes:
            self._end_noted(node, user, attempt, str(access_key))
        return "no node knows the session's access key any more"

    def _end_noted(self, node: str, user: str, attempt: str, access_key: str) -> None:
        # The second time for one that the node had on its disks alone: being asked for it, it has read it.
        for _ in range(2):
            self._admin.revoke(node, user, attempt)
            if not self._admin.holds(node, access_key):
                return
        raise MinioFailure("it said that the session was ended, but it is still there")
