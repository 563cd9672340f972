"""Adapters of the Connector port: one kind of upstream each, named for its product.

Belongs here: how an upstream is asked, how its answers and failures become the port's own words, and
what it takes to prove there that a credential is dead. Does not belong here: who may ask, when
something is due, what the ledger says. SDKs block, so each connector has threads of its own.
"""
