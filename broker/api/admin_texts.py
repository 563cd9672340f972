"""AdminService: agents' whole texts, each RPC a translation to one call of the inside and back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from broker.api import convert
from broker.api.v1 import claimed_text_pb2 as pb
from broker.audit.claimed import Claimed
from broker.issuance.caller import OperatorCaller
from broker.issuance.texts import TextDesk


class TextRpcs:
    """One method per RPC, named as in the proto; the door has established the caller before."""

    def __init__(self, desk: TextDesk) -> None:
        self._desk = desk

    async def GetTaskTexts(
        self, request: pb.GetTaskTextsRequest, caller: OperatorCaller, context: Any
    ) -> pb.GetTaskTextsResponse:
        """What was said on a task."""
        found = await self._desk.read(caller, request.task_id)
        return pb.GetTaskTextsResponse(texts=[_told(each) for each in found])

    async def EraseTaskTexts(
        self, request: pb.EraseTaskTextsRequest, caller: OperatorCaller, context: Any
    ) -> pb.EraseTaskTextsResponse:
        """Erase it."""
        return pb.EraseTaskTextsResponse(erased=await self._desk.erase(caller, request.task_id, request.reason))


def _told(claimed: Claimed) -> pb.ClaimedText:
    return pb.ClaimedText(
        about=claimed.about,
        create_time=convert.timestamp(datetime.fromtimestamp(claimed.at_ms / 1000, UTC)),
        **claimed.texts,
        cut=claimed.cut,
    )
