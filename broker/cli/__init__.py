"""The terminal door: everything a person (or a script) types as ``broker``.

Commands for agents need the base install only, and talk to the broker through :mod:`broker.client`;
operators' commands read files and need ``jit-broker[daemon]``. Each command is a file, imported when it is used.
"""
