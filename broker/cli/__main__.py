"""``python -m broker.cli`` is the ``broker`` command."""

from broker.cli.main import main

main()
