"""Gates for tests of what comes after a gate, as an operator would write them."""

from __future__ import annotations

from collections.abc import Mapping


def gates(field: str, needed: Mapping[str, tuple[str, ...]]) -> str:
    """Cedar: where ``resource.FIELD`` is a key of ``needed``, these approvals are asked for."""
    asked = [(value, approval) for value, approvals in needed.items() for approval in approvals]
    return "\n".join(gate(approval, f'resource.{field} == "{value}"', value) for value, approval in asked)


def gate(approval: str, when: str, name: str = "") -> str:
    """Cedar: ``approval`` is asked for where ``when`` is true."""
    return (
        f'@id("gate-{approval}-{name}") @approval("{approval}") @reason("People decide.")'
        f" forbid (principal, action, resource) when {{ {when} }}"
        f' unless {{ context.approvals.contains("{approval}") }};'
    )
