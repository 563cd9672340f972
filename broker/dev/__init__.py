"""The embedded default: real servers for a person at a terminal, for the demo and for the tests.

Belongs here: starting, configuring and stopping the parts a broker stands on (PostgreSQL, OpenBao,
a trust domain with its Workload API, a double of AWS), on loopback, with all state in one directory.

Does not belong here: anything a deployment uses. These servers trade durability and attestation for
a start in seconds; each module says which.
"""
