"""Lists that the people's door gives in pages, as far as somebody wants to see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click
from google.protobuf.message import Message

from broker.cli.output import note
from broker.client import read
from broker.client.admin import AdminClient

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_PAGE = 500


def limit_option(command: F) -> F:
    """``--limit``: how many at most."""
    return click.option(
        "--limit", type=click.IntRange(min=1), default=100, show_default=True, metavar="N", help="At most this many."
    )(command)


async def all_of(client: AdminClient, rpc: str, request: Any, field: str, kind: type[T], limit: int) -> list[T]:
    """The first ``limit`` of what ``rpc`` lists in ``field``, page by page. Says so where there are more."""
    found: list[T] = []
    while True:
        request.page_size = min(limit - len(found), _PAGE)
        answer: Any = await client.call(rpc, request)
        page: list[Message] = list(getattr(answer, field))
        found.extend(read.read(kind, each) for each in page)
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found
        if len(found) >= limit:
            note(f"there are more than these {limit}; --limit shows more")
            return found
