"""Which tool a request names, and whether its agent may call it (R11).

Belongs here: the one form in which a tool call is read where an agent has an allow list. The call is claimed
by the agent and proves nothing about what it will do with the credential; what the list stops is an agent
that was led to a tool it has no business with, and says so.
"""

from __future__ import annotations

from typing import NoReturn

from broker.errors import Denied, InvalidInput, Reason
from broker.identity.agent import Agent
from broker.identity.strict_json import NotStrictJson, parse_object
from broker.scope.request import AccessRequest

# The Model Context Protocol says "name" (tools/call), others say "tool".
_MEMBERS = ("tool", "name")
_HINT = (
    'Send the tool call as one JSON object that names its tool once: {"tool": "NAME", ...} or {"name": "NAME", ...}.'
)


def tool_called(tool_call: str) -> str:
    """The tool that ``tool_call`` names. Raises :class:`InvalidInput` (TOOL_CALL_MALFORMED), never quoting it.

    One JSON object, each member once at every depth, with ``tool`` or ``name`` (not both, nor one of them in other
    case: two readers could differ about which it is) as a text that is not empty.
    """
    if not tool_call:
        _malformed("is missing")
    try:
        members = parse_object(tool_call.encode())
    except (NotStrictJson, UnicodeEncodeError) as error:
        _malformed(str(error) if isinstance(error, NotStrictJson) else "is not UTF-8")
    named = [members[name] for name in _MEMBERS if name in members]
    if len(named) != 1:
        _malformed("has both tool and name" if named else "has neither tool nor name")
    # Some readers, Go's encoding/json among them, do not look at the case of a member's name.
    if sum(name.casefold() in _MEMBERS for name in members) > 1:
        _malformed("names its tool again in letters of another case")
    (tool,) = named
    if not isinstance(tool, str) or not tool:
        _malformed("names its tool by something other than a text")
    return tool


def check_tool(agent: Agent, request: AccessRequest) -> str:
    """The tool, where ``agent`` has an allow list and it is on it; empty where there is no list.

    Raises :class:`Denied` (TOOL_NOT_ALLOWED) or :class:`InvalidInput` (TOOL_CALL_MALFORMED).
    """
    if not agent.tools:
        return ""
    tool = tool_called(request.tool_call)
    if tool not in agent.tools:
        shown = ascii(tool)[1:-1][:128]
        raise Denied(
            Reason.TOOL_NOT_ALLOWED,
            f"{agent.principal} may not call the tool {shown}.",
            hint="WhoAmI (`broker whoami`) lists the tools that are allowed; an operator adds one in the agent's file.",
            metadata={"tool": shown, "principal": agent.principal},
        )
    return tool


def _malformed(why: str) -> NoReturn:
    raise InvalidInput(
        Reason.TOOL_CALL_MALFORMED,
        f"tool_call {why}, and this agent's tools are on an allow list.",
        hint=_HINT,
        metadata={"field": "tool_call"},
    )
