"""Secrets are redacted by their marks: proven on every field of every message."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from broker.api.redaction import redacted, sensitive_fields
from broker.api.v1 import broker_service_pb2, contract_pb2, credential_pb2, lease_pb2, task_pb2, template_pb2

FILES = (broker_service_pb2, contract_pb2, credential_pb2, lease_pb2, task_pb2, template_pb2)
MESSAGES = [message for file in FILES for message in file.DESCRIPTOR.message_types_by_name.values()]
CANARY = "CANARY-7f3a"

# Names that a secret would have; whoever adds one without a mark is stopped here.
SUSPICIOUS = ("password", "secret", "token", "private_key", "prompt", "tool_call")
# Kinds of credentials are whole messages, in which what is secret is marked.
HARMLESS = {"page_token", "next_page_token", "gcp_token", "kubernetes_token", "static_secret", "wrapped_secret"}


def reachable(descriptor: Descriptor) -> Iterator[Descriptor]:
    seen: set[str] = set()
    queue = [descriptor]
    while queue:
        each = queue.pop()
        if each.full_name not in seen:
            seen.add(each.full_name)
            yield each
            queue.extend(field.message_type for field in each.fields if field.message_type is not None)


@pytest.mark.parametrize("descriptor", MESSAGES, ids=lambda d: d.name)
def test_what_sounds_like_a_secret_is_marked(descriptor: Descriptor) -> None:
    for field in descriptor.fields:
        if any(word in field.name for word in SUSPICIOUS) and field.name not in HARMLESS:
            assert field.name in sensitive_fields(descriptor)


def fill(message: Message, depth: int = 4) -> Message:
    """Put the canary into every marked field, and something else into every other."""
    for field in message.DESCRIPTOR.fields:
        text = CANARY if field.name in sensitive_fields(message.DESCRIPTOR) else "plain"
        put(message, field, text, depth)
    return message


def put(message: Any, field: FieldDescriptor, text: str, depth: int) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, field.name)["key"] = text
    elif field.message_type is not None:
        if depth:
            child = getattr(message, field.name)
            child = child.add() if field.is_repeated else child
            child.SetInParent()
            fill(child, depth - 1)
    elif field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        value = text if field.type == FieldDescriptor.TYPE_STRING else text.encode()
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)


@pytest.mark.parametrize("descriptor", MESSAGES, ids=lambda d: d.name)
def test_no_canary_survives_redaction(descriptor: Descriptor) -> None:
    message = fill(GetMessageClass(descriptor)())
    shown = json.dumps(redacted(message), default=str)
    assert CANARY not in shown
    marked = any(sensitive_fields(each) for each in reachable(descriptor))
    assert (CANARY.encode() in message.SerializeToString()) == marked  # the test itself can see


def test_redaction_never_raises_on_impossible_values() -> None:
    request = broker_service_pb2.RequestCredentialRequest(ttl={"seconds": 1, "nanos": -5})
    assert redacted(request) == {"ttl": {"seconds": 1, "nanos": -5}}
