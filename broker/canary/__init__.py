"""Leases that the broker issues to itself, to measure how fast a credential is dead."""
