"""A tool call is read in one form, where an agent has an allow list, and in no other."""

import json
import re
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BrokerError, Denied, InvalidInput, Reason
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.policy.tools import check_tool
from broker.scope.request import AccessRequest
from tests.issuance.world import ALICE

READER = replace(ALICE, tools=frozenset({"sql.read", "notes"}))


def strictly(text: str) -> NotStrictJson:
    """What is wrong with ``text``."""
    with pytest.raises(NotStrictJson) as caught:
        parse_object(text.encode())
    return caught.value


def asking(tool_call: str) -> AccessRequest:
    return AccessRequest("r", "t", "task", "a", "dev", "x", timedelta(minutes=1), tool_call=tool_call)


@pytest.mark.parametrize(
    ("tool_call", "tool"),
    [
        ('{"tool": "sql.read"}', "sql.read"),
        ('{"name": "sql.read", "arguments": {"name": "orders", "tool": "none"}}', "sql.read"),  # MCP's tools/call
        ('  {"tool":"n\\u006ftes"}\n', "notes"),  # one text, however it is escaped
    ],
)
def test_a_tool_on_the_list(tool_call: str, tool: str) -> None:
    assert check_tool(READER, asking(tool_call)) == tool


@pytest.mark.parametrize(
    "tool_call",
    [
        "",
        "sql.read",
        '"sql.read"',
        '["sql.read"]',
        "{}",
        '{"tool": ""}',
        '{"tool": null}',
        '{"tool": ["sql.read"]}',
        '{"tool": 1}',
        '{"Tool": "sql.read"}',
        '{"function": {"name": "sql.read"}}',
        '{"tool": "sql.read", "tool": "sql.write"}',
        '{"tool": "sql.read", "t\\u006fol": "sql.write"}',
        '{"tool": "sql.read", "name": "sql.read"}',
        '{"tool": "sql.read", "arguments": {"a": 1, "a": 2}}',
        '{"tool": "sql.read", "n": NaN}',
        '{"tool": "sql.read"} {}',
        '{"tool": "sql.read"',
        "[" * 10_000,
        '\ufeff{"tool": "sql.read"}',
        '{"tool": "sql.read"\ud800}',
    ],
)
def test_every_other_form_is_refused(tool_call: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_tool(READER, asking(tool_call))
    assert caught.value.reason is Reason.TOOL_CALL_MALFORMED


@pytest.mark.parametrize("tool", ["sql.write", "SQL.READ", "sql.read ", "sql.read\\u0000", "ѕql.read"])
def test_a_tool_that_is_not_on_the_list(tool: str) -> None:
    with pytest.raises(Denied) as caught:
        check_tool(READER, asking(f'{{"tool": "{tool}"}}'))
    assert caught.value.reason is Reason.TOOL_NOT_ALLOWED
    assert caught.value.metadata["tool"].isascii()


@pytest.mark.parametrize(
    ("tool_call", "why"),
    [
        ("", "is missing"),
        ("\ud800", "is not UTF-8"),
        ('{"tool": "a", "tool": "b"}', re.escape(str(strictly('{"tool": "a", "tool": "b"}')))),
        ("{", re.escape(str(strictly("{")))),
        ("{}", "has neither tool nor name"),
        ('{"tool": "a", "name": "a"}', "has both tool and name"),
        ('{"tool": "a", "Tool": "b"}', "names its tool again in letters of another case"),
        ('{"NAME": "b", "name": "a"}', "names its tool again in letters of another case"),
        ('{"tool": "a", "Name": "b"}', "names its tool again in letters of another case"),
        ('{"Tool": "a"}', "has neither tool nor name"),
        ('{"tool": 1}', "names its tool by something other than a text"),
    ],
)
def test_what_is_wrong_with_its_form_is_told(tool_call: str, why: str) -> None:
    with pytest.raises(InvalidInput, match=f"^tool_call {why}, and this agent's tools") as caught:
        check_tool(READER, asking(tool_call))
    assert (caught.value.metadata, caught.value.hint.startswith("Send the tool call")) == ({"field": "tool_call"}, True)


@pytest.mark.parametrize(
    ("tool", "shown"),
    [("x" * 128, "x" * 128), ("x" * 129, "x" * 128), ("\N{SNOWMAN}", "\\u2603"), ("it's", "it's")],
)
def test_a_tool_that_is_refused_is_named_in_ascii_and_not_at_any_length(tool: str, shown: str) -> None:
    with pytest.raises(Denied, match="alice may not call the tool ") as caught:
        check_tool(READER, asking(json.dumps({"tool": tool})))
    assert caught.value.metadata == {"tool": shown, "principal": "alice"}
    assert shown in caught.value.message and caught.value.hint


@pytest.mark.parametrize("tool_call", ["", "anything at all", '{"tool": "x"}'])
def test_without_a_list_nothing_is_read(tool_call: str) -> None:
    assert check_tool(ALICE, asking(tool_call)) == ""


@given(st.text(max_size=200) | st.builds('{{"tool": {}}}'.format, st.text(max_size=50)))
def test_whatever_is_sent_nothing_outside_the_list_passes(tool_call: str) -> None:
    try:
        assert check_tool(READER, asking(tool_call)) in READER.tools
    except BrokerError as refused:
        assert refused.reason in (Reason.TOOL_CALL_MALFORMED, Reason.TOOL_NOT_ALLOWED)
