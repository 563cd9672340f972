"""Every way the inside touches the world, a file for each.

A port says what must be true, what is idempotent, and which errors come out; adapters live in the
plural rooms (``connectors``, ``stores``, ...) and are wired by ``broker/daemon/`` alone. Time is an
aware UTC ``datetime`` that callers pass in; stores keep milliseconds, so every stored time is
truncated to the millisecond by whoever makes it (:func:`broker.clock.SystemClock.now` does).
"""
