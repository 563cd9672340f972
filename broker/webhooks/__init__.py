"""Audit events on their way out: signed webhooks, as CloudEvents (adapters)."""
