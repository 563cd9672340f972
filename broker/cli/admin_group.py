"""``broker admin``: everybody's leases and tasks, the agents and the deploy set, for who operates the broker."""

from __future__ import annotations

import click

from broker.cli import admin_agents, admin_leases, admin_reload, admin_tasks


@click.group()
def admin() -> None:
    """Everybody's leases and tasks, the agents, the deploy set. That you looked is told in the audit trail."""


for _command in (
    admin_leases.leases,
    admin_leases.lease,
    admin_leases.revoke,
    admin_tasks.tasks,
    admin_tasks.task,
    admin_tasks.complete,
    admin_agents.agents,
    admin_agents.agent,
    admin_reload.reload,
):
    admin.add_command(_command)
