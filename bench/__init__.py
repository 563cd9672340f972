"""How fast the broker is, measured against OpenBao on the same machine in the same run: see README.md."""
