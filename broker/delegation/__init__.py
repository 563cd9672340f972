"""Handing on a part of what one holds: who may hand what to whom, and what that comes to. Pure."""
