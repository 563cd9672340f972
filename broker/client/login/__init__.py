"""How a person logs in at the organisation's OpenID provider, from a terminal.

``code_flow.py`` goes by way of a browser on this machine, ``device_flow.py`` by one on another; ``cached.py`` keeps
what was got, for reading, and ``fresh.py`` has a person log in again for what must never rest on something kept.
"""
