"""Carries one request through the ideas to the world and back: tasks, grants, leases, refusals."""
