"""jit-broker: just-in-time, task-scoped credentials for agents and pipelines.

Agents import :mod:`broker.client`; operators type ``broker``; the daemon is ``brokerd``.
The layout is described in ``docs/architecture.md``.
"""
