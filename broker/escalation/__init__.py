"""Escalation attempts: what an agent was refused, counted against rules (R11)."""
