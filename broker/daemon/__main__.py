"""``python -m broker.daemon``: the same as the ``brokerd`` command."""

from broker.daemon.main import main

if __name__ == "__main__":
    raise SystemExit(main())
