"""The real daemon under load, ended by ``kill -9`` again and again, beside an upstream that remembers: docs/torture.md."""
