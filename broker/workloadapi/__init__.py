"""The SPIFFE Workload API, as agents and the broker itself use it.

Belongs here: asking it with py-spiffe (``source.py``), and following it without ever making anybody wait
(``follow.py``). What is made of its answers belongs to who asks: a channel (``broker/client``), a port's
TLS (``broker/api``).
"""
